"""A layout placed after what is cached: positions, slots and attention mask of the rows of one call."""

from dataclasses import dataclass

import torch
from torch import Tensor

from foresay.models.layout.layout import Layout


@dataclass(frozen=True, slots=True)
class Call:
    """A layout placed after what each sequence has already cached.

    Real rows are aligned to the right: sequence b has `pads[b]` dead rows first, so that the last real row is row
    R - 1 for all (a ragged prompt and a sequence without drafts are the same case; a tree whose drafts branch has no
    dead rows, for a part of it at its end is no tree). Its live real rows and then its masks take the slots from
    `past[b]` on; dead rows go after them, where nobody looks.
    """

    layout: Layout
    past: Tensor
    """(B,) int64: cached tokens of each sequence; slot s < past holds position s."""
    pads: Tensor | None = None
    """(B,) int64: dead rows at the front of each sequence; None when there are none."""
    longest: int | None = None
    """The largest of `past`, where the host knows it: reading it from a device would make the host wait."""
    shortest: int | None = None
    """The least of `past`, where the host knows it."""
    slots_shown: int | None = None
    """Slots that attention is shown, more than are used, so that many calls have one shape; None: those used."""

    @property
    def used(self) -> int:
        """Slots that hold something once the call has run."""
        return (int(self.past.max()) if self.longest is None else self.longest) + self.layout.rows

    def first_seen(self, window: int | None) -> int:
        """The first slot that any row may see through a window of so many positions; None: through none."""
        return 0 if window is None or self.shortest is None else max(self.shortest - window + 1, 0)

    def __post_init__(self) -> None:
        if self.pads is not None and not self.layout.tree.is_chain:
            raise ValueError("drafts that branch leave no dead rows in front")

    def positions(self) -> Tensor:
        """(B, T) int64: position of every row; dead rows stand at 0 or later and never past a live one."""
        offsets = self.layout.draw(self.past.device).offsets
        if self.pads is None:
            return self.past[:, None] + offsets
        return ((self.past - self.pads)[:, None] + offsets).clamp(min=0)

    def slots(self) -> Tensor:
        """(B, T) int64: slot that each row's K/V go to, distinct within a sequence."""
        rows = torch.arange(self.layout.rows, device=self.past.device)
        if self.pads is None:
            return self.past[:, None] + rows
        return self.past[:, None] + (rows - self.pads[:, None]) % self.layout.rows

    def visible(self, slots: int, window: int | None = None) -> Tensor:
        """(B, 1, T, S) bool: what each row sees of the first `slots` slots.

        `window`, in positions, is the reach of a sliding-window layer: a key is seen while query - key < window.
        Stale slots (after the last row of the call) are seen by nobody.
        """
        drawing, rows = self.layout.draw(self.past.device), self.layout.rows
        relative = torch.arange(slots, device=self.past.device) - self.past[:, None]
        row = (relative if self.pads is None else relative + self.pads[:, None]) % rows
        own = (relative >= 0) & (relative < rows)
        seen = drawing.visible[:, row].transpose(0, 1)
        if self.pads is not None:
            alive = (row >= self.pads[:, None])[:, None]
            itself = torch.arange(rows, device=row.device)[:, None] == row[:, None]
            seen = (seen & alive) | itself
        seen = (seen & own[:, None]) | (relative < 0)[:, None]
        if window is not None:
            seen = seen & self._near(row, own, window)
        return seen[:, None]

    def _near(self, row: Tensor, own: Tensor, window: int) -> Tensor:
        """(B, T, S) bool: keys less than `window` positions before the query."""
        positions = self.positions()
        slot = torch.arange(row.shape[1], device=row.device).expand_as(row)
        key = torch.where(own, positions.gather(1, row), slot)
        return positions[:, :, None] - key[:, None, :] < window
