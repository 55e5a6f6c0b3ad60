"""Tokens a second of real text: ours beside transformers' own ways, at several batch sizes.

All ways take turns on the same prompts, held-out ones of the package; speed-ups are medians of the ratio within a
round. Prompts of a batch are as long as they are, but for transformers' static cache, where all are padded to one
length, so that it need not be compiled for each. The compiled way begins when the others have had some rounds, batch
size by batch size, where there is time for its first call.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, zip_longest
from typing import Any

from bases import trained
from card import spread
from job import Deadline, Job, Record

from foresay import DecodeConfig, MultiTokenModel
from foresay.data.prompts import by_domain, embedded_prompts
from foresay.decoding.generate import generate
from foresay.decoding.live import GenerationHooks
from foresay.decoding.metrics import tally
from foresay.decoding.step_costs import TYPICAL, calibrate, planner_for
from foresay.evaluation.baseline import plain_answers
from foresay.foundation.machine import now

TRANSFORMERS, STATIC, COMPILED, LOOKUP = "transformers", "transformers static", "transformers compiled", "prompt lookup"
PLAIN, PLANNED = "plain", "planned"
LONGEST = 384
"""Tokens of a prompt; longer ones are not taken."""
OURS: dict[str, dict[str, Any]] = {
    PLAIN: {"layout": "plain"},
    "quadratic 3": {"layout": "quadratic", "masks": 3},
    "tree": {"layout": "tree"},
    PLANNED: {"layout": "planned"},
}
THEIRS: dict[str, dict[str, Any]] = {
    TRANSFORMERS: {},
    STATIC: {"length": LONGEST, "cache_implementation": "static", "disable_compile": True},
    COMPILED: {"length": LONGEST, "cache_implementation": "static"},
    LOOKUP: {"lookup_tokens": 10},
}
ROUNDS, FIRST_ROUNDS, COMPILED_ROUNDS = 6, 2, 2
"""Of all ways but the compiled one, and how many of them go before it."""
WARM_UP_TOKENS, CALIBRATION_SECONDS = 8, 2.0
TO_COMPILE = 30.0
"""Seconds that must be left to begin with the compiled way at one batch size."""

Batch = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Turn:
    """One batch, decoded in one way."""

    seconds: float
    answers: list[list[int]]
    tokens_per_step: float

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return sum(map(len, self.answers)) / self.seconds


@dataclass(slots=True)
class Race:
    """All ways at one batch size."""

    model: MultiTokenModel
    prompts: Batch
    size: int
    tokens: int
    turns: dict[str, dict[int, Turn]] = field(default_factory=dict)
    """By way and round."""
    rounds: int = 0
    longest: float = 0.0
    """Seconds of the longest round so far."""

    @property
    def ways(self) -> list[str]:
        """Those that go in turns from the start."""
        theirs = [name for name in THEIRS if name != COMPILED and (name != LOOKUP or self.size == 1)]
        return [*theirs, *OURS]

    def warm_up(self, ways: Sequence[str], tokens: int = WARM_UP_TOKENS) -> None:
        """What is made at the first call is no part of the measurement."""
        for name in ways:
            self.turn(name, self.batch(), tokens)

    def round(self, ways: Sequence[str]) -> None:
        """Every way once, on the next prompts; each round begins with another."""
        batch, shift, began = self.batch(), self.rounds % len(ways), time.monotonic()
        for name in [*ways[shift:], *ways[:shift]]:
            self.turns.setdefault(name, {})[self.rounds] = self.turn(name, batch, self.tokens)
        self.rounds += 1
        self.longest = max(self.longest, time.monotonic() - began)

    def batch(self) -> list[Sequence[int]]:
        """The next prompts, over and over."""
        start = self.rounds * self.size % len(self.prompts)
        return list(islice(cycle(self.prompts), start, start + self.size))

    def turn(self, name: str, batch: Batch, tokens: int) -> Turn:
        """Decode under the clock; the planner is ready before."""
        core, device = self.model.mask_model, self.model.base.device
        planner = planner_for(core, len(batch), TYPICAL) if name == PLANNED else None
        steps: list[int] = []
        began = now(device)
        if name in OURS:
            config = DecodeConfig(**OURS[name], max_new_tokens=tokens)
            said = generate(core, batch, config, GenerationHooks(planner=planner))
            seconds = now(device) - began
            return Turn(seconds, [one.tokens for one in said], tally(said).tokens_per_step)
        answers = plain_answers(self.model, batch, tokens, heard=lambda: steps.append(1), **THEIRS[name])
        seconds = now(device) - began
        return Turn(seconds, answers, sum(map(len, answers)) / len(steps) if name == LOOKUP else 1.0)

    def rows(self) -> list[dict[str, Any]]:
        """A result for each way that had a turn."""
        return [self.row(name, turns) for name, turns in self.turns.items()]

    def row(self, name: str, turns: dict[int, Turn]) -> dict[str, Any]:
        """A way beside plain decoding and transformers, which had a turn in all its rounds."""
        per_step = statistics.median(turn.tokens_per_step for turn in turns.values())
        plain, theirs = ([self.turns[other][number] for number in turns] for other in (PLAIN, TRANSFORMERS))
        times_plain, times_theirs = (
            statistics.median(own.rate / other.rate for own, other in zip(turns.values(), others))
            for others in (plain, theirs)
        )
        pairs = [pair for own, other in zip(turns.values(), theirs) for pair in zip(own.answers, other.answers)]
        return {
            "way": name,
            "batch": self.size,
            "tokens_per_second": spread([turn.rate for turn in turns.values()]),
            "tokens_per_step": per_step,
            "times_plain": times_plain,
            "times_transformers": times_theirs,
            "efficiency": times_plain / per_step,
            "identical_to_transformers": sum(own == other for own, other in pairs),
            "answers": len(pairs),
        }

    @property
    def line(self) -> str:
        """All ways in one line."""
        rows = {row["way"]: row for row in self.rows()}
        times = ", ".join(f"{name} {row['times_plain']:.2f}" for name, row in rows.items() if name != PLAIN)
        return f"batch {self.size}: plain {rows[PLAIN]['tokens_per_second']['median']:.0f} tokens/s; x plain: {times}"


def run(job: Job, record: Record, deadline: Deadline) -> None:
    """Rounds at every batch size in turn, until the time is over."""
    model = trained(job, record)
    sizes, tokens, rounds = ((1, 2), 6, 1) if job.dry_run else ((1, 8, 32), 64, ROUNDS)
    found = embedded_prompts(model.require_tokenizer(), "test", 20, model.base_name)
    short = by_domain([prompt for prompt in found if len(prompt.ids) <= LONGEST])
    prompts = [prompt.ids for some in zip_longest(*short.values()) for prompt in some if prompt]
    races = [Race(model, prompts, size, tokens) for size in sizes]
    for race in races:
        calibrate(model.mask_model, race.size, TYPICAL, 0.1 if job.dry_run else CALIBRATION_SECONDS)
        race.warm_up(race.ways)
    for number in range(rounds):
        for race in races:
            take_turns(race, race.ways, races, record, deadline)
        if number + 1 == min(FIRST_ROUNDS, rounds):
            for race in races:
                compiled(race, races, record, deadline)
    for race in races:
        if race.turns:
            record.say(race.line)


def compiled(race: Race, races: list["Race"], record: Record, deadline: Deadline) -> None:
    """The compiled way beside those that it is compared with."""
    if deadline.left < TO_COMPILE:
        record.leave_out(f"{COMPILED} at batch {race.size}", f"its first call may need {TO_COMPILE:.0f} s")
        return
    began = time.monotonic()
    race.warm_up([COMPILED], race.tokens)
    record.say(f"batch {race.size}: the first call of {COMPILED} took {time.monotonic() - began:.0f} s")
    for _ in range(COMPILED_ROUNDS):
        take_turns(race, [COMPILED, PLAIN, TRANSFORMERS], races, record, deadline)


def take_turns(race: Race, ways: list[str], races: list[Race], record: Record, deadline: Deadline) -> None:
    """One more round, where there is time; the results are those of all rounds so far."""
    if deadline.left <= race.longest:
        record.leave_out(f"round {race.rounds + 1} of {', '.join(ways)} at batch {race.size}", "the time was over")
        return
    race.round(ways)
    record.results = [row for one in races for row in one.rows()]
    record.write()
