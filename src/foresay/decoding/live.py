"""A sequence that is being decoded, and what a generation is run with beside its settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from foresay.decoding.planning.plan import PendingRows
from foresay.decoding.planning.planner import Outlook, Planner
from foresay.decoding.sampling.chooser import Chooser, Greedy
from foresay.decoding.steps import Step

Stop = Callable[[int, list[int]], bool]
"""Whether a text ends here: called with its index, and prompt and answer up to each kept token."""


class PlannerSource(Protocol):
    """Has a planner for each step: a `Planner`, or `Planners`."""

    def at(self, sequences: int, length: int) -> Planner | None:
        """For a step of so many sequences, of which the longest has `length` tokens cached; None: a plain step."""


@dataclass(slots=True)
class LiveSequence:
    """A sequence that is still going on."""

    index: int
    row: PendingRows
    room: int
    """Tokens it may still say."""
    ids: list[int]
    """Prompt and answer so far."""
    anchor: int = 0
    """Row of the last call that the newest token was said by."""
    used: int = 0
    """Random numbers that its last step used."""
    steps: list[Step] = field(default_factory=list)
    stopped: bool = False
    outlook: Outlook | None = None
    """How well it is foretold, where a planner asks."""

    def look(self, planner: Planner, lookup: bool) -> Outlook:
        """What the planner is to know before the next step; a prompt is read without drafts."""
        if self.outlook is None:
            self.outlook = planner.outlook(self.ids, lookup)
        self.outlook.look(self.row.drafted, reads_prompt=self.row.fresh > self.row.drafted + 1)
        return self.outlook

    @property
    def looked_up(self) -> tuple[int, ...]:
        """The tokens of its match that its next step verifies."""
        outlook = self.outlook
        return () if outlook is None or outlook.match is None else outlook.match.tokens[: outlook.taken]


@dataclass(frozen=True, slots=True)
class GenerationHooks:
    """What a generation is run with, beside its settings."""

    chooser: Callable[[Sequence[int]], Chooser] = lambda indices: Greedy()
    """Makes the chooser for the prompts with these indices."""
    watch: Callable[[int, Step], None] = lambda index, step: None
    """Told of every step: (prompt index, step)."""
    stop: Stop | None = None
    """Ends a text besides the stop tokens."""
    stop_tokens: frozenset[int] | None = None
    """Replace the base's own stop tokens."""
    planner: PlannerSource | None = None
    """Chooses the layout of each step where the settings say `planned`."""
