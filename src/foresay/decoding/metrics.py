"""One set of metrics for training, bench, eval, check and whatever counts later.

*Tokens per step* is a ratio of sums: kept tokens over steps, where a step is one forward of the base for one live
sequence (prefill is one), and tokens after a stop or past the maximum are not kept. Paper A calls it acceptance rate.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from foresay.decoding.steps import Generation, Step


@dataclass(frozen=True, slots=True)
class PositionAcceptance:
    """How drafts fared at one position of a step, counted from 1."""

    position: int
    drafted: int
    """Steps that verified drafts at this position."""
    accepted: int
    """Steps that kept one, and so one at each position before."""
    unconditional: float
    """Accepted over drafted."""
    conditional: float
    """Accepted over the steps that drafted here and kept the draft before."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What some generations cost and gave."""

    prompts: int
    tokens: int
    steps: int
    drafted: int
    accepted: int
    acceptance: tuple[PositionAcceptance, ...]
    """Of the model's own drafts."""
    looked_up: int = 0
    """Drafts verified that a prompt lookup found."""
    looked_up_accepted: int = 0
    """Those that were accepted."""
    layouts: Mapping[str, int] = field(default_factory=dict)
    """Steps in each layout, the most frequent first; those that read prompts apart."""

    @property
    def tokens_per_step(self) -> float:
        """Kept tokens over steps."""
        return self.tokens / self.steps if self.steps else 0.0

    @property
    def acceptance_per_position(self) -> list[float]:
        """Unconditional acceptance of each draft position."""
        return [entry.unconditional for entry in self.acceptance]


def tally(generations: Iterable[Generation]) -> Tally:
    """Count the steps of some generations together."""
    generations = list(generations)
    steps = [step for generation in generations for step in generation.steps]
    own = [(step.depth, step.accepted) for step in steps if not step.looked_up]
    deepest = max((depth for depth, _ in own), default=0)
    return Tally(
        prompts=len(generations),
        tokens=sum(len(step.tokens) for step in steps),
        steps=len(steps),
        drafted=sum(step.drafted for step in steps),
        accepted=sum(step.accepted for step in steps),
        acceptance=tuple(_acceptance(position, own) for position in range(1, deepest + 1)),
        looked_up=sum(step.looked_up for step in steps),
        looked_up_accepted=sum(step.accepted for step in steps if step.looked_up),
        layouts=dict(Counter(step.layout for step in steps if step.layout).most_common()),
    )


def within(generation: Generation, steps: int | None = None, tokens: int | None = None) -> Generation:
    """The first `steps` steps of an answer, and its first `tokens` tokens; None: all."""
    kept, room = list[Step](), math.inf if tokens is None else tokens
    for step in generation.steps[:steps]:
        said = step.tokens[: int(min(room, len(step.tokens)))]
        if said:
            kept.append(replace(step, tokens=said, accepted=min(step.accepted, len(said))))
        room -= len(said)
    return generation if tuple(kept) == generation.steps else Generation(tuple(kept), "length")


def rates_of_domains(domains: Iterable[str], generations: Iterable[Generation]) -> dict[str, float]:
    """Tokens per step of each domain; `domains` names that of each generation."""
    groups: dict[str, list[Generation]] = {}
    for domain, generation in zip(domains, generations, strict=True):
        groups.setdefault(domain, []).append(generation)
    return {domain: tally(group).tokens_per_step for domain, group in groups.items()}


def _acceptance(position: int, steps: Sequence[tuple[int, int]]) -> PositionAcceptance:
    """`steps` are pairs: positions drafted for, drafts kept."""
    drafted = sum(depth >= position for depth, _ in steps)
    accepted = sum(kept >= position for _, kept in steps)
    reached = sum(depth >= position and kept >= position - 1 for depth, kept in steps)
    return PositionAcceptance(position, drafted, accepted, _ratio(accepted, drafted), _ratio(accepted, reached))


def repeated_4grams(texts: Iterable[Sequence[int]]) -> float:
    """Share of 4-grams that occurred before in the same text: loops make drafting easy, so this stands beside it."""
    repeated = total = 0
    for text in texts:
        grams = Counter(zip(text, text[1:], text[2:], text[3:], strict=False))
        total += sum(grams.values())
        repeated += sum(count - 1 for count in grams.values())
    return _ratio(repeated, total)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
