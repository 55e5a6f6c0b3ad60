"""Where the rows of a training step stand and what they see. Pure: no model, no weights.

A sequence of a batch holds one document, or several side by side that do not see one another; positions begin anew in
each, and rows are counted from the first of the sequence. Real rows go through the base alone, mask rows after what
it kept of them. The rule of what is visible is that of `layout.py`.

Letters: B batch, R real rows, A anchors, K masks of a block, T = A * K mask rows, S rows seen.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Documents:
    """The real rows of some sequences."""

    starts: Tensor
    """(B, R) int64: first row of the document that a row belongs to."""

    @property
    def longest(self) -> int:
        """Most rows of a document, padding after it too."""
        return int(self.positions(slice(0, self.starts.shape[1])).max()) + 1

    def of(self, sequences: slice) -> "Documents":
        """Those of these sequences."""
        return Documents(self.starts[sequences])

    def positions(self, rows: slice) -> Tensor:
        """(B, T) int64: position in its document of each of these rows."""
        return torch.arange(rows.start, rows.stop, device=self.starts.device) - self.starts[:, rows]

    def visible(self, rows: slice, window: int | None = None) -> Tensor:
        """(B, 1, T, S) bool: what these rows see of the first S = `rows.stop` rows.

        `window`, in positions, is the reach of a sliding-window layer: a key is seen while query - key < window.
        """
        key = torch.arange(rows.stop, device=self.starts.device)
        query = key[rows, None]
        seen = (key <= query) & (key >= self.starts[:, rows, None])
        return (seen if window is None else seen & (query - key < window))[:, None]


@dataclass(frozen=True, slots=True)
class MaskCall:
    """The mask rows of a training layout alone, after kept K/V of the real rows; anchors differ by sequence.

    The rows are A blocks of `size` masks; row a * size + j - 1 is mask j of block a.
    """

    anchors: Tensor
    """(B, A) int64: the real row that each block belongs to."""
    size: int
    last: int
    """Last row that a mask may stand for; masks past it have no label and nobody reads them."""
    starts: Tensor | None = None
    """(B, A) int64: first row of each anchor's document; None: one document a sequence."""

    @property
    def rows(self) -> int:
        """Mask rows of a sequence, T."""
        return self.anchors.shape[1] * self.size

    def mask_indices(self) -> Tensor:
        """(T,) int64: j - 1 of each row."""
        return torch.arange(self.size, device=self.anchors.device).repeat(self.anchors.shape[1])

    def places(self) -> Tensor:
        """(B, T) int64: the real row that stands where the mask does, anchor + j, at most `last`."""
        return self._places().flatten(1).clamp(max=self.last)

    def positions(self) -> Tensor:
        """(B, T) int64: position in its document."""
        return self.places() - self._starts().repeat_interleave(self.size, dim=1)

    def reach(self, window: int | None = None) -> Tensor:
        """(B, A, K, 2) int64: first and last kept row that a mask sees.

        Counting anchor + j, masks of the own block that stand before the first are not visible too.
        """
        last = self.anchors[:, :, None].expand(-1, -1, self.size)
        first = self._starts()[:, :, None].expand_as(last)
        if window is not None:
            first = torch.maximum(first, self._places() - window + 1)
        return torch.stack((first, last), dim=-1)

    def visible(self, kept: int, window: int | None = None) -> Tensor:
        """(B, 1, T, kept + T) bool: real rows up to the anchor, then the own block up to oneself."""
        first, last = (edge.flatten(1)[:, :, None] for edge in self.reach(window).unbind(-1))
        row = torch.arange(kept, device=self.anchors.device)
        past = (first <= row) & (row <= last)
        block = torch.arange(self.anchors.shape[1], device=row.device).repeat_interleave(self.size)
        place = self._places().flatten(1)
        own = (block[:, None] == block) & (first <= place[:, None]) & (place[:, None] <= place[:, :, None])
        return torch.cat((past, own), dim=-1)[:, None]

    def _places(self) -> Tensor:
        """(B, A, K) int64: anchor + j."""
        return self.anchors[:, :, None] + torch.arange(1, self.size + 1, device=self.anchors.device)

    def _starts(self) -> Tensor:
        return torch.zeros_like(self.anchors) if self.starts is None else self.starts
