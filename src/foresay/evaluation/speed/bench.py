"""The verb `bench`: what acceleration is worth here, measured side by side in one interleaved run."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foresay.data.prompts import Prompt
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import repeated_4grams
from foresay.evaluation.config import BenchConfig
from foresay.evaluation.speed.timed_runs import (
    LOOKUP,
    PLAIN,
    PLANNED,
    TRANSFORMERS,
    Case,
    Decoder,
    TimedRuns,
    Turn,
    Turns,
    Watching,
    cases_of,
    decoders_of,
)
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel

KEPT = 1.01
"""Tokens a step from which a decoder kept drafts."""
RATIO_RULE = "Ratios are medians, over the rounds, of the ratio within a round."
"""How one decoder is compared with another, everywhere."""


@dataclass(frozen=True, slots=True)
class Result:
    """One decoder on one case."""

    decoder: str
    masks: int
    batch_size: int
    prompts: int
    """Answers measured, those that filled the last batch included."""
    lengthened_to: int
    """Tokens that each prompt was brought to; 0: as it is."""
    prompt_tokens: float
    """Mean length of the prompts."""
    dtype: str
    domain: str
    tokens_per_second: float
    """Median over the repeats."""
    tokens_per_second_spread: tuple[float, float]
    """Smallest and largest over the repeats."""
    first_token_seconds: float
    """From the start of a batch to the first token of its answers: median over batches and repeats."""
    peak_memory_bytes: int | None
    """See `foundation/machine.py`; None where it cannot be measured."""
    tokens_per_step: float
    acceptance_per_position: tuple[float, ...]
    """Unconditional; empty for transformers."""
    repeated_4grams: float
    """Share in the base's own output: loops flatter."""
    identical: int
    """Answers equal to transformers' `generate`."""
    speedup_vs_plain: float
    """Median over the repeats of the ratio within a repeat."""
    speedup_vs_transformers: float
    efficiency: float
    """Speed-up over plain divided by tokens per step."""

    @property
    def label(self) -> str:
        """The decoder in one word or two."""
        return f"{self.decoder} {self.masks}" if self.masks else self.decoder

    @property
    def as_plain(self) -> bool:
        """Whether `planned` took plain steps: what it differs by from plain decoding is noise."""
        return self.decoder == PLANNED and self.tokens_per_step < KEPT

    @property
    def over_plain(self) -> str:
        """The speed-up over plain decoding in words."""
        return "as plain" if self.as_plain else f"{self.speedup_vs_plain:.2f}"


@dataclass(frozen=True, slots=True)
class Bench:
    """A whole run."""

    results: tuple[Result, ...]
    provenance: dict[str, Any]

    def speedups(self, lengthened_to: int) -> dict[int, dict[str, float]]:
        """Speed-up over plain by batch size and decoder: the geometric mean over the domains.

        Where `planned` took plain steps (`Result.as_plain`) it counts as 1.
        """
        logs: dict[int, dict[str, list[float]]] = {}
        for result in self.results:
            if result.lengthened_to == lengthened_to and result.decoder != PLAIN:
                row = logs.setdefault(result.batch_size, {})
                row.setdefault(result.label, []).append(0.0 if result.as_plain else math.log(result.speedup_vs_plain))
        return {
            size: {label: math.exp(statistics.mean(some)) for label, some in row.items()} for size, row in logs.items()
        }

    @property
    def lengths(self) -> list[int]:
        """What prompts were brought to, in the order asked for."""
        return list(dict.fromkeys(result.lengthened_to for result in self.results))


def bench(
    model: MultiTokenModel, prompts: Sequence[Prompt], config: BenchConfig, watching: Watching | None = None
) -> Bench:
    """Measure every decoder on every case, `config.repeats` times in turn, after a warm-up each.

    Raises PromptError for prompts that cannot be served.
    """
    cases = cases_of(prompts, config)
    for case in cases:
        model.check_prompts(case.prompts, DecodeConfig(masks=max(config.masks, default=0)))
    turns = TimedRuns(model, config, watching or Watching()).run(cases)
    results = [
        _result(case, decoder, turns[case], model.dtype_name)
        for case in cases
        for decoder in decoders_of(model, config, case.batch_size)
    ]
    return Bench(tuple(results), provenance(**model.described, adapter=model.provenance, **asdict(config)))


def _result(case: Case, decoder: Decoder, turns: Turns, dtype: str) -> Result:
    own, reference = turns[decoder], turns[Decoder(TRANSFORMERS)]
    last, base = own[-1], reference[-1].answers
    rates, steps = [turn.rate for turn in own], _tokens_per_step(decoder, last)
    speedup = _ratio(own, turns[Decoder(PLAIN)])
    peaks = [turn.peak_bytes for turn in own if turn.peak_bytes is not None]
    return Result(
        decoder=decoder.name,
        masks=decoder.masks,
        batch_size=case.batch_size,
        prompts=len(last.answers),
        lengthened_to=case.lengthened_to,
        prompt_tokens=round(statistics.mean(map(len, case.prompts)), 1),
        dtype=dtype,
        domain=case.domain,
        tokens_per_second=statistics.median(rates),
        tokens_per_second_spread=(min(rates), max(rates)),
        first_token_seconds=statistics.median(run.first_token_seconds for turn in own for run in turn.runs),
        peak_memory_bytes=max(peaks, default=None),
        tokens_per_step=steps,
        acceptance_per_position=tuple(last.tally.acceptance_per_position),
        repeated_4grams=repeated_4grams(base),
        identical=sum(a == b for a, b in zip(last.answers, base)),
        speedup_vs_plain=speedup,
        speedup_vs_transformers=_ratio(own, reference),
        efficiency=speedup / steps,
    )


def _tokens_per_step(decoder: Decoder, turn: Turn) -> float:
    """Kept tokens over steps of a live sequence: one for transformers, but for its prompt lookup, which goes alone."""
    if decoder.name == LOOKUP:
        return sum(map(len, turn.answers)) / sum(run.steps for run in turn.runs)
    return 1.0 if decoder.name == TRANSFORMERS else turn.tally.tokens_per_step


def _ratio(own: Sequence[Turn], other: Sequence[Turn]) -> float:
    """Median over the repeats of the speed ratio within a repeat."""
    return statistics.median(a.rate / b.rate for a, b in zip(own, other))
