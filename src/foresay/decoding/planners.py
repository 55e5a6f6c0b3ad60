"""Planners for steps of any batch size and context length, as soon as what these cost is known.

Nothing waits for a measurement. Costs come from files; where there are none they are measured turn by turn, while
nobody asks for anything or between steps, and until then steps are plain ones. Costs that were measured while other
programs took the processor are used, and measured again.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from foresay.decoding.cost_files import Measured, keep, place_of, read
from foresay.decoding.planning.acceptance import AcceptanceEstimate, LookupEstimate
from foresay.decoding.planning.planner import Exploration, Planner
from foresay.decoding.step_costs import TYPICAL, Measurement, rounded
from foresay.models.drafting import DraftingModel

MOST_SLOTS = 2**14
"""Cached tokens of all sequences together that steps are measured after: a measurement has a cache of its own."""
HALF, TENTH, AGAIN = 1.0, 0.1, 0.02
"""Seconds of measuring for each second of steps: for one text that is waited for, on a server, and at most for what is
known already, if not well."""
TRIES = 3
"""Times that one process measures what other programs disturb."""

Cell = tuple[int, int]
"""Batch size and context length that are measured, see `rounded`."""


@dataclass(slots=True)
class CostBook:
    """What is known of one model's steps, and what is still to be measured; kept by the model."""

    known: dict[Path, Measured] = field(default_factory=dict)
    wanted: dict[Path, Cell] = field(default_factory=dict)
    """The first one is at work."""
    measurement: Measurement | None = None
    former: Measured | None = None
    """What is measured again at work."""
    tries: dict[Path, int] = field(default_factory=dict)
    """Measurements that were made in this process."""

    @classmethod
    def of(cls, model: DraftingModel) -> "CostBook":
        """The model's own."""
        if model.cost_book is None:
            model.cost_book = cls()
        book: CostBook = model.cost_book
        return book

    @property
    def share(self) -> float:
        """What is done of the measurement at work."""
        return 0.0 if self.measurement is None else self.measurement.share

    def look(self, path: Path, cell: Cell) -> None:
        """Read the costs in a file, and want those measured that are not there or were disturbed."""
        if path in self.known:
            return
        found = read(path)
        if found is not None:
            self.known[path] = found
        if (found is None or not found.calm) and cell[0] * cell[1] <= MOST_SLOTS:
            self.wanted.setdefault(path, cell)

    def turn(self, model: DraftingModel) -> bool:
        """Measure one entry of what is wanted first once more; false: nothing is wanted."""
        self._forget_others(model)
        if not self.wanted:
            return False
        path, cell = next(iter(self.wanted.items()))
        try:
            self._turn(model, path, cell)
        except (RuntimeError, MemoryError) as error:
            self._end(path)
            warnings.warn(
                f"what steps of {cell[0]} sequences after {cell[1]} tokens cost could not be measured ({error}), so "
                "they are planned by what is known of others; foresay calibrate measures again",
                stacklevel=2,
            )
        return True

    def _turn(self, model: DraftingModel, path: Path, cell: Cell) -> None:
        if self.measurement is None:
            self.measurement, self.former = Measurement(model, *cell), self.known.get(path)
        self.measurement.turn()
        done = self.measurement.share == 1.0
        if self.measurement.usable:
            news = path not in self.known
            self.known[path] = self.measurement.found().beside(self.former)
            if news or done:
                keep(path, self.known[path])
        if done:
            self._end(path)
            self.tries[path] = self.tries.get(path, 0) + 1
            if not self.known[path].calm and self.tries[path] < TRIES:
                self.wanted[path] = cell

    def _end(self, path: Path) -> None:
        """Nothing more of this, for now."""
        self.measurement = self.former = None
        del self.wanted[path]

    def _forget_others(self, model: DraftingModel) -> None:
        """Steps that are no longer made as they were when they were wanted: compiled, recorded, packed or not."""
        stale = [path for path, cell in self.wanted.items() if place_of(model, *cell) != path]
        if stale and stale[0] == next(iter(self.wanted)):
            self.measurement = self.former = None
        for path in stale:
            del self.wanted[path]


class Planners:
    """The planners of one model, which learn from each other."""

    def __init__(
        self, model: DraftingModel, masks: int = 0, share: float = HALF, clock: Callable[[], float] = monotonic
    ) -> None:
        """At most `masks` masks (0: as trained); `share` of the time of steps may be spent measuring between them."""
        self.model, self.masks, self.share, self.clock = model, masks or model.config.drafts, share, clock
        self.book = CostBook.of(model)
        self.acceptance = AcceptanceEstimate.from_training(model.acceptance, self.masks)
        self.lookup, self.exploration = LookupEstimate(), Exploration()
        self._places: dict[Cell, Path] = {}
        self._planners: dict[Cell, Planner] = {}
        self._since, self._credit = clock(), 0.0
        self.last: Planner | None = None

    def at(self, sequences: int, length: int) -> Planner | None:
        """The planner of a step of so many sequences, the longest of which has `length` tokens cached.

        What was not measured yet is stood in for by the nearest context length, of this batch size or the next larger
        one, in which more rows cost more; None: there is none.
        """
        cell = rounded(self.model, sequences, length)
        self._look(cell)
        known = [other for other in self._places if other[0] >= cell[0] and self._places[other] in self.book.known]
        nearest = min(known, key=lambda other: (other[0], abs(other[1] - cell[1])), default=None)
        self.last = None if nearest is None else self._planner(nearest)
        return self.last

    def reason(self) -> str:
        """What is chosen now, and why, in words."""
        if self.last is None:
            return f"what other steps cost here is not known yet ({self.book.share:.0%} measured)"
        disturbed = any(found.costs is self.last.source and not found.calm for found in self.book.known.values())
        return self.last.reason() + (" (by costs that were measured while other programs ran)" if disturbed else "")

    def expected_acceptance(self, place: int) -> float:
        """a_j of all texts so far, j counted from 0."""
        return self.acceptance.estimate()[place]

    def expect(self, sizes: Sequence[int]) -> None:
        """Batches of these sizes will come."""
        for size in sizes:
            self._look(rounded(self.model, size, TYPICAL))

    def measure(self) -> bool:
        """Measure a little, four steps; false: all is known."""
        return self.book.turn(self.model)

    def between_steps(self, hold: Callable[[], None] = lambda: None) -> None:
        """Measure for the share of the time since the last call, should anything be wanted; `hold` is called before."""
        passed = self.clock() - self._since
        share = self.share if self.book.former is None else min(self.share, AGAIN)
        self._credit = self._credit + share * passed if self.book.wanted else 0.0
        if self._credit > 0:
            begun = self.clock()
            hold()
            self.measure()
            self._credit -= self.clock() - begun
        self._since = self.clock()

    def _look(self, cell: Cell) -> None:
        if cell not in self._places:
            self._places[cell] = place_of(self.model, *cell)
            self.book.look(self._places[cell], cell)

    def _planner(self, cell: Cell) -> Planner:
        """With the costs as they are known now."""
        costs = self.book.known[self._places[cell]].costs
        kept = self._planners.get(cell)
        if kept is None or kept.source is not costs:
            usable = {entry: cost for entry, cost in costs.items() if entry.masks <= self.masks}
            kept = Planner(usable, self.acceptance, self.lookup, self.exploration, source=costs)
            self._planners[cell] = kept
        return kept
