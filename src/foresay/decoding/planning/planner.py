"""Which layout pays now: what a step costs here, against what its drafts are worth.

Two inputs. *Costs*: seconds of a whole step for each entry of a fixed menu, measured on this machine. *Acceptance*:
a_j, the share of steps that keep the j-th draft (and so all before it), from training and then from what is seen, of
all texts and of each.

Expected tokens a second, in the long run:

- `plain`: 1 / C.
- `quadratic` with k masks verifies k drafts every step: (1 + a_1 + ... + a_k) / C_k.
- `linear` with k masks has drafts again only after all k were kept, which happens with chance a_k; else one step of one
  real row comes in between. A drafting step and the (1 - a_k) steps that follow it on average give
  (1 + a_1 + ... + a_k + (1 - a_k)) / (C_k + (1 - a_k) C'_k), with C'_k the cost of the step without drafts.

Over a batch the tokens of all sequences are added, and a_j is the mean of theirs: the ratio is the same.

What a prompt lookup found may stand in for a sequence's own drafts, in the layout chosen so, or in a plain step with
rows for it (`lookup`). With R the rate of the layout, a step that says 1 + h tokens in C seconds gains
(1 + h) / R - C; the variant that gains most is taken. After a `lookup` step nothing is drafted, so the next step of a
layout with masks costs C' and says one token: that loss, C' - 1 / R, is charged to it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from foresay.decoding.config import FixedLayout
from foresay.decoding.planning.acceptance import AcceptanceEstimate, LookupEstimate
from foresay.decoding.planning.prompt_lookup import TOKENS, Match, NgramIndex

EXPLORED = 0.01
"""Most of the time that may be lost in steps that are taken to learn something."""
PROBE_MASKS = 4
"""Masks of the block that is drafted and verified from `plain`, now and then, or nothing would ever be learnt again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One layout of the menu."""

    layout: FixedLayout
    masks: int = 0
    lookup: int = 0
    """Rows for what a prompt lookup found, in a step without masks."""

    @property
    def drafts(self) -> int:
        """Drafts that a step verifies, if there are as many: one a mask; in `plain` those that a probe left."""
        return self.lookup or self.masks or PROBE_MASKS

    @property
    def label(self) -> str:
        """The layout in one word or two."""
        if self.lookup:
            return f"lookup {self.lookup}"
        return f"{self.layout} {self.masks}" if self.masks else self.layout


PLAIN, LOOKUP = Entry("plain"), Entry("plain", lookup=TOKENS)
MENU: tuple[Entry, ...] = (
    PLAIN,
    Entry("linear", 2),
    Entry("linear", 4),
    Entry("linear", 8),
    Entry("quadratic", 1),
    Entry("quadratic", 2),
    Entry("quadratic", 3),
    Entry("quadratic", 4),
    LOOKUP,
)
"""Of masks. At most nine shapes: what compilation and CUDA graphs can hold."""
HEADS_MENU: tuple[Entry, ...] = (PLAIN, *(Entry("quadratic", drafts) for drafts in range(1, 8)), LOOKUP)
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

    `acceptance[j - 1]` is a_j; positions past its end count as never kept, and so does what a lookup may find.
    """
    if entry.layout == "plain":
        return 1 / cost.drafted
    kept = [*acceptance[: entry.masks], *[0.0] * (entry.masks - len(acceptance))]
    if entry.layout == "quadratic":
        return (1 + sum(kept)) / cost.drafted
    broken = 1 - kept[-1]
    return (1 + sum(kept) + broken) / (cost.drafted + broken * cost.undrafted)


@dataclass(slots=True)
class Outlook:
    """What one text has shown of how well it is foretold."""

    acceptance: AcceptanceEstimate
    lookup: LookupEstimate
    index: NgramIndex | None = None
    """None: nothing is looked up."""
    drafted: int = 0
    """The model's drafts that its next step may verify."""
    match: Match | None = None
    """What a lookup found for the next step."""
    taken: int = 0
    """Tokens of the match that the next step verifies at most, in place of the model's drafts."""

    def promise(self, drafts: int, rows: int) -> tuple[float, int]:
        """Of a step that verifies at most `drafts` of the model's, or `rows` of the match: what stays, and the rows."""
        verified = min(self.drafted, drafts)
        own = sum(self.acceptance.estimate()[:verified]) if verified else 0.0
        found = self.lookup.expected(self.match, rows)
        return (found, rows) if found > own else (own, 0)

    def look(self, drafted: int, reads_prompt: bool) -> None:
        """Before a step: so many drafts of the model are there to be verified."""
        self.drafted, self.taken = drafted, 0
        self.match = None if self.index is None or reads_prompt else self.index.match()


@dataclass(slots=True)
class Exploration:
    """Seconds of steps as they were expected, and how many of them were given up to learn something."""

    spent: float = 0.0
    lost: float = 0.0

    def allows(self, loss: float) -> bool:
        """Whether so much more may be lost."""
        return self.lost + loss <= EXPLORED * self.spent


@dataclass(frozen=True, slots=True)
class _Variant:
    """A way to take the next step."""

    entry: Entry
    taken: tuple[int, ...]
    """Looked-up tokens that each sequence verifies; 0: its own drafts, if it has any."""
    gain: float
    """Seconds, against the layout's rate in the long run."""


@dataclass(slots=True)
class Planner:
    """Takes the entry with the greatest expected rate, and tries others as far as `EXPLORED` allows.

    From `plain` it probes: one `linear` step, whose drafts are verified in the `plain` step after it.
    """

    costs: Costs
    acceptance: AcceptanceEstimate
    lookup: LookupEstimate = field(default_factory=LookupEstimate)
    exploration: Exploration = field(default_factory=Exploration)
    source: Costs | None = None
    """What `costs` were taken from."""

    def at(self, sequences: int, length: int) -> "Planner":
        """Itself, for steps of any batch size and context length."""
        return self

    def outlook(self, ids: Sequence[int], lookup: bool) -> Outlook:
        """For a new text, `ids` up to now and as they grow; `lookup`: with prompt lookup.

        Other planners may choose its later steps, as the batch grows or shrinks: it holds nothing of these costs.
        """
        index = NgramIndex(ids) if lookup else None
        return Outlook(self.acceptance.of_sequence(), self.lookup.of_sequence(), index)

    def best(self, hopeful: bool = False, outlooks: Sequence[Outlook] = ()) -> Entry:
        """The entry that pays most, as far as is known, or may be hoped, of these texts; without any, of all."""
        return self._best(self._known(outlooks, hopeful))

    def choose(self, outlooks: Sequence[Outlook] = ()) -> Entry:
        """The entry of the next step; each of `outlooks` is told what it verifies of its match (`Outlook.taken`)."""
        known = self._known(outlooks)
        best = self._best(known)
        tried, loss = self._trial(best, known, self._known(outlooks, hopeful=True))
        if tried != best and self.exploration.allows(loss):
            self.exploration.lost += loss
            self.exploration.spent += self._cost(tried).drafted
            return tried
        chosen = max(self._variants(best, known, outlooks), key=lambda variant: variant.gain)
        for outlook, taken in zip(outlooks, chosen.taken):
            outlook.taken = taken
        self.exploration.spent += self._cost(chosen.entry).drafted
        return chosen.entry

    def reason(self) -> str:
        """Which layout with masks pays most, or would, and why, in words."""
        known, plain = self.acceptance.estimate(), self.costs[PLAIN].drafted
        with_masks = [entry for entry in self.costs if 0 < entry.masks <= len(known)]
        if not with_masks:
            return "there are no masks to choose from"
        shown = max(with_masks, key=lambda entry: self._rate(entry, known))
        gain = self._rate(shown, known) * plain
        verdict = "pays" if gain > 1 else "does not pay"
        times = self.costs[shown].drafted / plain
        return f"{shown.label} {verdict}: a step costs {times:.2f} plain steps, and {gain:.2f} times plain is expected"

    def observe(self, outlook: Outlook, drafted: int, accepted: int, said: Sequence[int]) -> None:
        """Learn from a step of a text: drafts it verified, those that stayed, and all tokens it said."""
        for acceptance in () if outlook.taken else (self.acceptance, outlook.acceptance):
            acceptance.observe(drafted, accepted)
        for lookup in () if outlook.match is None else (self.lookup, outlook.lookup):
            assert outlook.match is not None
            lookup.observe(outlook.match, said)

    def _known(self, outlooks: Sequence[Outlook], hopeful: bool = False) -> list[float]:
        """a_1, a_2, ...: the mean of these texts', or of all there were."""
        if not outlooks:
            return self.acceptance.estimate(hopeful)
        return [fmean(some) for some in zip(*(one.acceptance.estimate(hopeful) for one in outlooks))]

    def _best(self, known: Sequence[float]) -> Entry:
        possible = [entry for entry in self.costs if entry.masks <= len(known) and not entry.lookup]
        return max(possible, key=lambda entry: self._rate(entry, known))

    def _rate(self, entry: Entry, known: Sequence[float]) -> float:
        return expected_rate(entry, self.costs[entry], known)

    def _trial(self, best: Entry, known: Sequence[float], hoped: Sequence[float]) -> tuple[Entry, float]:
        """What would teach most, and the seconds that it loses if none of its drafts stays."""
        tried = self._best(hoped)
        if tried != best:
            return tried, self.costs[tried].drafted - 1 / self._rate(best, known)
        probe = Entry("linear", min(PROBE_MASKS, len(known)))
        if best != PLAIN or not any(entry.masks for entry in self.costs):
            return best, 0.0
        # The probe's masks, and the rows of its drafts in the step after it.
        return probe, 2 * max(self._cost(probe).undrafted - self.costs[PLAIN].drafted, 0.0)

    def _cost(self, entry: Entry) -> Cost:
        """Of a probe that is not on the menu: that of the entry with masks that is nearest in number."""
        if entry in self.costs:
            return self.costs[entry]
        others = [other for other in self.costs if other.masks]
        return self.costs[min(others, key=lambda other: abs(other.masks - entry.masks))]

    def _variants(self, best: Entry, known: Sequence[float], outlooks: Sequence[Outlook]) -> Iterator[_Variant]:
        """The layout as it is, with matches in the place of drafts, and a plain step with rows for matches."""
        rate = self._rate(best, known)
        yield self._variant(best, 0, outlooks, rate)
        if not any(one.match for one in outlooks):
            return
        if best.masks:
            yield self._variant(best, best.masks, outlooks, rate)
        if LOOKUP not in self.costs:  # the measurement ended before its turn
            return
        after = self._variant(LOOKUP, LOOKUP.lookup, outlooks, rate)
        owed = max(self.costs[best].undrafted - 1 / rate, 0.0) if best.masks else 0.0
        yield replace(after, gain=after.gain - owed)

    def _variant(self, entry: Entry, rows: int, outlooks: Sequence[Outlook], rate: float) -> _Variant:
        """`entry` with so many rows for matches."""
        promises = [one.promise(entry.drafts, rows) for one in outlooks]
        taken = tuple(rows for _, rows in promises)
        drafted = any(taken) or any(one.drafted for one in outlooks)
        cost = self.costs[entry]
        tokens = 1 + (fmean(kept for kept, _ in promises) if promises else 0.0)
        return _Variant(entry, taken, tokens / rate - (cost.drafted if drafted else cost.undrafted))
