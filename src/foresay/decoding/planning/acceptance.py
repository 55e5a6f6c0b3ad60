"""How drafts have fared: a_j, the share of steps that keep the j-th draft of the model, and what lookups earned."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from foresay.decoding.planning.prompt_lookup import LONGEST, SHORTEST, Match

PRIOR_STEPS = 10.0
"""Steps that the acceptance from training counts for: texts differ."""
SEQUENCE_STEPS = 3.0
"""Steps that the acceptance of all texts counts for in a new one: after a dozen steps its own tells more."""
UNKNOWN = 0.5
"""Conditional acceptance assumed where training left none: worth a try."""
UNKNOWN_STEPS = 2.0
"""Steps that this counts for: where drafts fail, a few of them settle it."""
MEMORY = 0.99
"""How much of the evidence so far a step leaves: old text tells less about the text now."""
LOOKUP_PRIOR = {2: 0.2, 3: 0.4, 4: 0.6}
"""Chance that the token after an n-gram is the one that followed it before, until the text has shown it."""
LOOKUP_STEPS, LOOKUP_MEMORY = 2.0, 0.9
"""Tokens that this prior counts for, and how much of the evidence so far a step leaves: loops begin and end."""


def prior(measured: Sequence[float], masks: int) -> tuple[float, ...]:
    """a_1, ..., a_masks as training measured them, or a guess where it did not."""
    return tuple(measured)[:masks] or tuple(UNKNOWN**place for place in range(1, masks + 1))


def conditional(acceptance: Sequence[float]) -> list[float]:
    """The chance of each draft to stay, given that the one before it did: a_j / a_{j-1}."""
    return [a / b if b else 0.0 for a, b in zip(acceptance, (1.0, *acceptance))]


@dataclass(slots=True)
class AcceptanceEstimate:
    """Running estimate of a_j, as a product of conditional chances, each with a prior."""

    prior: Sequence[float]
    """a_j from training, or of all texts."""
    weight: float = PRIOR_STEPS
    """Steps that the prior counts for."""
    reached: list[float] = field(init=False)
    kept: list[float] = field(init=False)
    _estimates: dict[bool, list[float]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By `hopeful`, until more is observed: a planner asks every text in every step."""

    def __post_init__(self) -> None:
        self.reached = [self.weight] * len(self.prior)
        self.kept = [self.weight * chance for chance in conditional(self.prior)]

    @classmethod
    def from_training(cls, measured: Sequence[float], masks: int) -> "AcceptanceEstimate":
        """What training measured of at most so many masks; where that is nothing, a guess that counts for little."""
        return cls(prior(measured, masks), PRIOR_STEPS if measured else UNKNOWN_STEPS)

    def of_sequence(self) -> "AcceptanceEstimate":
        """One for a new text, which begins with what is known of all."""
        return AcceptanceEstimate(self.estimate(), min(SEQUENCE_STEPS, self.weight))

    def observe(self, drafted: int, accepted: int) -> None:
        """Learn from one step of one sequence."""
        if drafted:
            self._estimates.clear()
        for place in range(min(drafted, accepted + 1, len(self.kept))):
            self.reached[place] = self.reached[place] * MEMORY + 1
            self.kept[place] = self.kept[place] * MEMORY + (place < accepted)

    def estimate(self, hopeful: bool = False) -> list[float]:
        """a_1, a_2, ...

        `hopeful`: each conditional chance a standard error higher, but for the error that full memory leaves. What is
        little known is then tried sooner (Auer et al. 2002, upper confidence bounds), and what is well known is not.
        """
        if hopeful not in self._estimates:
            self._estimates[hopeful] = self._estimate(hopeful)
        return self._estimates[hopeful]

    def _estimate(self, hopeful: bool) -> list[float]:
        chances, product, least = [], 1.0, (1 - MEMORY) ** 0.5
        for kept, reached in zip(self.kept, self.reached):
            chance = kept / reached
            error = (chance * (1 - chance)) ** 0.5 * max(reached**-0.5 - least, 0.0)
            product *= min(chance + hopeful * error, 1.0)
            chances.append(product)
        return chances


@dataclass(slots=True)
class LookupEstimate:
    """Running estimate of the chance that a looked-up token is right, by the length of the n-gram that matched.

    A match needs no verification to be learnt from: what it foretold is compared with what was said. So text without
    repeats costs no trials.
    """

    kept: dict[int, float] = field(default_factory=lambda: {n: LOOKUP_STEPS * p for n, p in LOOKUP_PRIOR.items()})
    reached: dict[int, float] = field(default_factory=lambda: dict.fromkeys(LOOKUP_PRIOR, LOOKUP_STEPS))

    def of_sequence(self) -> "LookupEstimate":
        """One for a new text, which begins with what is known of all."""
        lengths = range(SHORTEST, LONGEST + 1)
        return LookupEstimate({n: LOOKUP_STEPS * self.chance(n) for n in lengths})

    def observe(self, match: Match, said: Sequence[int]) -> None:
        """Learn from the tokens that were said where `match` stood."""
        right = match.agreement(said)
        tried = min(right + 1, len(said), len(match.tokens))
        length = match.length
        self.reached[length] = self.reached[length] * LOOKUP_MEMORY + tried
        self.kept[length] = self.kept[length] * LOOKUP_MEMORY + min(right, tried)

    def chance(self, length: int) -> float:
        """That the next token after a match of `length` tokens is right, all before it being so."""
        return self.kept[length] / self.reached[length]

    def expected(self, match: Match | None, most: int) -> float:
        """Drafts of `match` that will stay, of at most so many."""
        if match is None:
            return 0.0
        chance = self.chance(match.length)
        return sum(chance**place for place in range(1, min(len(match.tokens), most) + 1))
