"""Which layout pays now: what a step costs here, against what its drafts are worth.

Two inputs. *Costs*: seconds of a whole step for each entry of a fixed menu, measured on this machine. *Acceptance*:
a_j, the share of steps that keep the j-th draft (and so all before it), from training and then from what is seen.

Expected tokens a second, in the long run:

- `plain`: 1 / C.
- `quadratic` with k masks verifies k drafts every step: (1 + a_1 + ... + a_k) / C_k.
- `linear` with k masks has drafts again only after all k were kept, which happens with chance a_k; else one step of one
  real row comes in between. A drafting step and the (1 - a_k) steps that follow it on average give
  (1 + a_1 + ... + a_k + (1 - a_k)) / (C_k + (1 - a_k) C'_k), with C'_k the cost of the step without drafts.

Over a batch the tokens of all sequences are added, and a_j is their mean: the ratio is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from foresay.decoding.config import FixedLayout

PRIOR_STEPS = 10.0
"""Steps that the acceptance from training counts for: texts differ."""
UNKNOWN = 0.5
"""Conditional acceptance assumed where training left none: worth a try, and soon corrected."""
MEMORY = 0.99
"""How much of the evidence so far a step leaves: old text tells less about the text now."""
PROBE_EVERY = 128
"""Steps of `plain` after which one block is drafted and verified, or nothing would ever be learnt again."""
PROBE_MASKS = 4
"""Masks of that block."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One layout of the menu."""

    layout: FixedLayout
    masks: int = 0

    @property
    def drafts(self) -> int:
        """Drafts that a step verifies, if there are as many: one a mask; in `plain` those that a probe left."""
        return self.masks or PROBE_MASKS

    @property
    def label(self) -> str:
        """The layout in one word or two."""
        return f"{self.layout} {self.masks}" if self.masks else self.layout


PLAIN = Entry("plain")
MENU: tuple[Entry, ...] = (
    PLAIN,
    Entry("linear", 2),
    Entry("linear", 4),
    Entry("linear", 8),
    Entry("quadratic", 1),
    Entry("quadratic", 2),
    Entry("quadratic", 3),
    Entry("quadratic", 4),
)
"""Of masks. At most eight shapes: what compilation and CUDA graphs can hold."""
HEADS_MENU: tuple[Entry, ...] = (PLAIN, *(Entry("quadratic", drafts) for drafts in range(1, 8)))
"""Of heads, which have no rows of their own: a quadratic step is as narrow as a linear one, and loses no drafts."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of a whole step of one entry: forward, verification, drafting, bookkeeping."""

    drafted: float
    """With all its drafts to verify."""
    undrafted: float
    """With none: one real row and its masks."""
    rows: int = 1
    """Rows of a sequence in a step with all its drafts."""


Costs = Mapping[Entry, Cost]


def expected_rate(entry: Entry, cost: Cost, acceptance: Sequence[float]) -> float:
    """Tokens a second of one sequence in the long run; formula at the top of this file.

    `acceptance[j - 1]` is a_j; positions past its end count as never kept.
    """
    if entry.layout == "plain":
        return 1 / cost.drafted
    kept = [*acceptance[: entry.masks], *[0.0] * (entry.masks - len(acceptance))]
    if entry.layout == "quadratic":
        return (1 + sum(kept)) / cost.drafted
    broken = 1 - kept[-1]
    return (1 + sum(kept) + broken) / (cost.drafted + broken * cost.undrafted)


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
    """a_j from training."""
    reached: list[float] = field(init=False)
    kept: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.reached = [PRIOR_STEPS] * len(self.prior)
        self.kept = [PRIOR_STEPS * chance for chance in conditional(self.prior)]

    def observe(self, drafted: int, accepted: int) -> None:
        """Learn from one step of one sequence."""
        for place in range(min(drafted, accepted + 1, len(self.kept))):
            self.reached[place] = self.reached[place] * MEMORY + 1
            self.kept[place] = self.kept[place] * MEMORY + (place < accepted)

    def estimate(self, hopeful: bool = False) -> list[float]:
        """a_1, a_2, ...

        `hopeful`: each conditional chance a standard error higher, but for the error that full memory leaves. What is
        little known is then tried sooner (Auer et al. 2002, upper confidence bounds), and what is well known is not.
        """
        chances, product, least = [], 1.0, (1 - MEMORY) ** 0.5
        for kept, reached in zip(self.kept, self.reached):
            chance = kept / reached
            error = (chance * (1 - chance)) ** 0.5 * max(reached**-0.5 - least, 0.0)
            product *= min(chance + hopeful * error, 1.0)
            chances.append(product)
        return chances


@dataclass(slots=True)
class Planner:
    """Takes the entry with the greatest expected rate; from `plain` it probes now and then.

    A probe is one `linear` step: its drafts are verified in the `plain` step after it.
    """

    costs: Costs
    acceptance: AcceptanceEstimate
    plain_steps: int = 0

    def best(self, hopeful: bool = False) -> Entry:
        """The entry that pays most, as far as is known, or may be hoped."""
        known = self.acceptance.estimate(hopeful)
        possible = [entry for entry in self.costs if entry.masks <= len(known)]
        return max(possible, key=lambda entry: expected_rate(entry, self.costs[entry], known))

    def choose(self) -> Entry:
        """The entry of the next step."""
        best = self.best(hopeful=True)
        self.plain_steps = self.plain_steps + 1 if best == PLAIN else 0
        probe = Entry("linear", min(PROBE_MASKS, len(self.acceptance.prior)))
        return probe if best == PLAIN and self.plain_steps % PROBE_EVERY == 0 else best
