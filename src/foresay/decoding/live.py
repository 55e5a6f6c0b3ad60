"""A sequence that is being decoded, and what a generation is run with beside its settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from foresay.decoding.planning.plan import PendingRows
from foresay.decoding.planning.planner import Outlook, Planner
from foresay.decoding.sampling.chooser import Chooser, Greedy
from foresay.decoding.steps import Step
from foresay.models.base.cache import SlotCache

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

    @property
    def cached(self) -> list[int]:
        """The tokens whose K/V the cache holds."""
        return self.ids[: self.row.past]

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


def unread(sequences: Sequence[LiveSequence], device: torch.device) -> Tensor:
    """Tokens that the cache does not hold yet, (B, any) int64, aligned to the left."""
    ids = [live.ids[live.row.past :] for live in sequences]
    wide = max(map(len, ids), default=0)
    return torch.tensor([[*some, *[0] * (wide - len(some))] for some in ids], dtype=torch.int64, device=device)


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
    leaves: Callable[[SlotCache, int, LiveSequence], None] = lambda cache, place, live: None
    """Told of a sequence that ends, and its place in the cache, while that still holds its K/V."""
    reads: Callable[[Sequence[LiveSequence], int, Tensor], None] = lambda sequences, real, states: None
    """Told of every forward: the sequences, how many real rows it had, and the states (B, T, D) of its rows."""
    planner: PlannerSource | None = None
    """Chooses the layout of each step where the settings say `planned`."""
