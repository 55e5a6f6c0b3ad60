"""Where decoders are measured: every decoder on every case, in turn, under one clock.

A *case* is one domain at one batch size and prompt length. Every decoder warms up on every case and then runs it
`repeats` times; each repeat starts with another decoder, so that none always runs on a warmer machine. Warm-up, and
what `planned` has to measure beforehand, stay outside the clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch

from foresay.data.prompts import Prompt, by_domain, lengthened
from foresay.decoding.config import DecodeConfig
from foresay.decoding.live import GenerationHooks
from foresay.decoding.metrics import Tally, tally
from foresay.decoding.planning.planner import Planner
from foresay.decoding.step_costs import Watch, unwatched
from foresay.decoding.steps import Generation, Step
from foresay.evaluation.baseline import plain_answers
from foresay.evaluation.config import BenchConfig
from foresay.foundation.machine import now, peak_bytes, restart_peak
from foresay.model import MultiTokenModel

TRANSFORMERS, LOOKUP, PLAIN, PLANNED = "transformers", "prompt lookup", "plain", "planned"
WARM_UP_TOKENS = 16
"""Tokens that every decoder says of every case before anything is measured."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """One way to decode."""

    name: str
    masks: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """Prompts of one domain, brought to one length, at one batch size."""

    domain: str
    lengthened_to: int
    """Tokens that each prompt was brought to (`prompts.lengthened`); 0: as it is."""
    batch_size: int
    prompts: tuple[tuple[int, ...], ...]

    @property
    def batches(self) -> list[list[tuple[int, ...]]]:
        """All of the batch size: the last is filled up from the first prompts."""
        count = -(-len(self.prompts) // self.batch_size)
        filled = list(islice(cycle(self.prompts), count * self.batch_size))
        return [filled[start : start + self.batch_size] for start in range(0, len(filled), self.batch_size)]


@dataclass(frozen=True, slots=True)
class TimedBatch:
    """One batch through one decoder."""

    seconds: float
    first_token_seconds: float
    steps: int
    """Steps that were told of: of transformers' decoding, every forward."""
    answers: list[list[int]]
    generations: list[Generation]
    """The same step by step, where the decoder is ours."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One case through one decoder, once."""

    runs: tuple[TimedBatch, ...]
    peak_bytes: int | None

    @property
    def answers(self) -> list[list[int]]:
        """Of all batches."""
        return [answer for run in self.runs for answer in run.answers]

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return sum(map(len, self.answers)) / sum(run.seconds for run in self.runs)

    @property
    def tally(self) -> Tally:
        """What our decoder's steps gave; empty for transformers."""
        return tally(generation for run in self.runs for generation in run.generations)


@dataclass(frozen=True, slots=True)
class Watching:
    """Who looks on."""

    turn: Callable[[str, int, int], None] = lambda name, done, total: None
    """Told of every turn of a decoder, warm-up included: (decoder, turns so far, turns in all)."""
    calibration: Watch = unwatched


def cases_of(prompts: Sequence[Prompt], config: BenchConfig) -> list[Case]:
    """Every length, batch size and domain."""
    return [
        Case(domain, length, size, tuple(prompt.ids for prompt in lengthened(group, length)))
        for length in dict.fromkeys(config.prompt_tokens)
        for size in dict.fromkeys(config.batch_sizes)
        for domain, group in by_domain(prompts).items()
    ]


def decoders_of(model: MultiTokenModel, config: BenchConfig, batch_size: int) -> list[Decoder]:
    """Transformers and plain first: everything else is measured against them."""
    masks = config.masks or (model.drafts,)
    lookup = [Decoder(LOOKUP)] if config.lookup_tokens and batch_size == 1 else []
    layouts = [Decoder(name, k) for name in config.layouts for k in ((0,) if name in (PLAIN, PLANNED) else masks)]
    return list(dict.fromkeys([Decoder(TRANSFORMERS), *lookup, Decoder(PLAIN), *layouts]))


Turns = dict[Decoder, list[Turn]]


@dataclass(slots=True)
class TokenTimes:
    """Hears of steps as they are made."""

    device: torch.device
    started: float
    first_seconds: float = 0.0
    steps: int = 0

    def hear(self, index: int = 0, step: Step | None = None) -> None:
        """A step was made; the first one gave the first token."""
        if not self.steps:
            self.first_seconds = now(self.device) - self.started
        self.steps += 1


@dataclass(frozen=True, slots=True)
class TimedRuns:
    """Where decoders are measured."""

    model: MultiTokenModel
    config: BenchConfig
    watching: Watching

    def run(self, cases: Sequence[Case]) -> dict[Case, Turns]:
        """Every turn of every decoder on every case."""
        decoders = {case: decoders_of(self.model, self.config, case.batch_size) for case in cases}
        turns: dict[Case, Turns] = {case: {decoder: [] for decoder in decoders[case]} for case in cases}
        total, done = (1 + self.config.repeats) * sum(map(len, decoders.values())), 0
        for repeat in range(-1, self.config.repeats):  # -1 is the warm-up
            for case in cases:
                shift = max(repeat, 0) % len(decoders[case])
                for decoder in decoders[case][shift:] + decoders[case][:shift]:
                    if repeat < 0:
                        self.decode(case.batches[0], decoder, min(WARM_UP_TOKENS, self.config.max_new_tokens))
                    else:
                        turns[case][decoder].append(self.turn(case, decoder))
                    done += 1
                    self.watching.turn(decoder.name, done, total)
        return turns

    def turn(self, case: Case, decoder: Decoder) -> Turn:
        """Decode every batch of the case."""
        device = self.model.base.device
        measurable = restart_peak(device)
        runs = tuple(self.decode(batch, decoder, self.config.max_new_tokens) for batch in case.batches)
        return Turn(runs, peak_bytes(device) if measurable else None)

    def decode(self, batch: Sequence[Sequence[int]], decoder: Decoder, max_new_tokens: int) -> TimedBatch:
        """Decode one batch; what is done once for all requests is done before the clock starts."""
        device, generations = self.model.base.device, list[Generation]()
        if decoder.name in (TRANSFORMERS, LOOKUP):
            self.model.close()  # they run on the base as it was found
            listener = TokenTimes(device, now(device))
            lookup = self.config.lookup_tokens if decoder.name == LOOKUP else 0
            answers = plain_answers(self.model, batch, max_new_tokens, lookup, listener.hear)
        else:
            config = DecodeConfig(
                layout=decoder.name,  # type: ignore[arg-type]
                masks=decoder.masks,
                max_new_tokens=max_new_tokens,
                compile=self.config.compile,
                graphs=self.config.graphs,
            )
            # The planner measures steps as they will be made.
            self.model.prepare(config)
            planner = self._planner(batch) if decoder.name == PLANNED else None
            listener = TokenTimes(device, now(device))
            generations = self.model.decode(batch, config, GenerationHooks(watch=listener.hear, planner=planner))
            answers = [generation.tokens for generation in generations]
        return TimedBatch(now(device) - listener.started, listener.first_seconds, listener.steps, answers, generations)

    def _planner(self, batch: Sequence[Sequence[int]]) -> Planner:
        return self.model.planner(len(batch), max(map(len, batch)), watch=self.watching.calibration)
