"""Where the rows of a call stand and what each may see. Pure: no model, no weights.

Real rows come first, mask rows after them. A mask row hangs on an anchor (a real row) at an offset j = 1..k and
stands at the anchor's position + j. Rule of sight: a real row sees real rows up to itself; a mask row sees real rows
up to its anchor, itself and the earlier masks of its own block; nobody else sees a mask. Where drafts branch, "up to"
means "on the way to the root".
(Paper A, sections 3 and 5, in another order of rows: order is free because sight and position are explicit.)

Letters: B batch, T rows of a call, R real rows, S slots, K masks of the largest block.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from foresay.tree import Tree

NO_DRAFTS = Tree()


@dataclass(frozen=True, slots=True)
class Block:
    """`size` masks behind the real row `anchor`."""

    anchor: int
    size: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """A layout as tensors on one device."""

    steps: Tensor
    """(T,) int64: position of a row, counted from the first real row's."""
    offsets: Tensor
    """(T - R,) int64: j - 1 of each mask row, the index of its embedding."""
    anchors: Tensor
    """(T - R,) int64: the real row that each mask row hangs on."""
    sight: Tensor
    """(T, T) bool: row t sees row u of the same call."""
    block_rows: Tensor
    """(R, K) int64: rows of the block behind each real row; past its size, row T - 1 stands in and is not read."""
    block_sizes: Tensor
    """(R,) int64: masks behind each real row."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The rows of one call: real rows, then blocks of masks behind some of them.

    Real rows are a chain whose last row is the root of `tree`, then its drafts.
    """

    real: int
    blocks: tuple[Block, ...] = ()
    tree: Tree = NO_DRAFTS

    def __post_init__(self) -> None:
        if self.trunk < 1:
            raise ValueError(f"a layout needs a real row before {self.tree.drafts} drafts, not {self.real} in all")
        for block in self.blocks:
            if not (0 <= block.anchor < self.real and block.size >= 1):
                raise ValueError(f"{block} does not hang on one of {self.real} real rows")

    @classmethod
    def plain(cls, real: int = 1, tree: Tree = NO_DRAFTS) -> "Layout":
        """Real rows only."""
        return cls(real, (), tree)

    @classmethod
    def linear(cls, real: int, masks: int, tree: Tree = NO_DRAFTS) -> "Layout":
        """Masks behind the last real row (paper A, linear decoding; also prefill)."""
        return cls(real, _blocks({real - 1: masks}), tree)

    @classmethod
    def quadratic(cls, real: int, masks: int, tree: Tree = NO_DRAFTS) -> "Layout":
        """Masks behind every real row, the newest verified token included: (k+1)^2 rows for k drafts in a chain."""
        return cls(real, _blocks(dict.fromkeys(range(real), masks)), tree)

    @classmethod
    def training(cls, real: int, anchors: tuple[int, ...], masks: int) -> "Layout":
        """Masks behind chosen real rows (the paper's packed training pass)."""
        return cls(real, _blocks(dict.fromkeys(anchors, masks)))

    @property
    def trunk(self) -> int:
        """Real rows up to the root."""
        return self.real - self.tree.drafts

    @property
    def steps(self) -> tuple[int, ...]:
        """Position of every real row, counted from the first one's; they never fall."""
        return (*range(self.trunk - 1), *(self.trunk - 1 + depth for depth in self.tree.depths))

    @property
    def masks(self) -> int:
        """Mask rows."""
        return sum(block.size for block in self.blocks)

    @property
    def rows(self) -> int:
        """All rows, T."""
        return self.real + self.masks

    def size_behind(self, anchor: int) -> int:
        """Masks behind the real row `anchor`."""
        return next((block.size for block in self.blocks if block.anchor == anchor), 0)

    def within(self, room: int) -> "Layout":
        """The layout with no row more than `room` positions past the first: drafts and blocks end there."""
        steps = self.steps
        real = sum(step <= room for step in steps)
        sizes = {b.anchor: min(b.size, room - steps[b.anchor]) for b in self.blocks if b.anchor < real}
        return Layout(real, _blocks(sizes), self.tree.first(max(real - self.trunk, 0)))

    def draw(self, device: torch.device) -> Drawing:
        """The layout as tensors, made once for each device."""
        return _draw(self, device)


def _blocks(sizes: dict[int, int]) -> tuple[Block, ...]:
    return tuple(Block(anchor, size) for anchor, size in sizes.items() if size >= 1)


@lru_cache(maxsize=256)
def _draw(layout: Layout, device: torch.device) -> Drawing:
    real, rows = layout.real, layout.rows
    largest, root = max((block.size for block in layout.blocks), default=0), layout.trunk - 1
    steps = torch.tensor([*layout.steps, *[0] * layout.masks])
    sight = torch.zeros(rows, rows, dtype=torch.bool)
    sight[:real, : root + 1] = torch.ones(real, root + 1, dtype=torch.bool).tril()
    sight[root:real, root:real] = layout.tree.draw(torch.device("cpu")).ways
    block_rows = torch.full((real, largest), rows - 1)
    block_sizes = torch.zeros(real, dtype=torch.int64)
    offsets, anchors, start = [], [], real
    for block in layout.blocks:
        end = start + block.size
        inside = torch.arange(block.size)
        steps[start:end] = steps[block.anchor] + 1 + inside
        sight[start:end, :real] = sight[block.anchor, :real]
        sight[start:end, start:end] = torch.ones(block.size, block.size, dtype=torch.bool).tril()
        block_rows[block.anchor, : block.size] = start + inside
        block_sizes[block.anchor] = block.size
        offsets.append(inside)
        anchors += [block.anchor] * block.size
        start = end
    stacked = torch.cat(offsets) if offsets else torch.zeros(0, dtype=torch.int64)
    tensors = (steps, stacked, torch.tensor(anchors, dtype=torch.int64), sight, block_rows, block_sizes)
    return Drawing(*(tensor.to(device) for tensor in tensors))


@dataclass(frozen=True, slots=True)
class Call:
    """A layout placed behind what each sequence has already cached.

    Real rows are aligned to the right: sequence b has `pads[b]` dead rows first, so that the last real row is row
    R - 1 for all (a ragged prompt and a sequence without drafts are the same case; a tree whose drafts branch has no
    dead rows, for a part of it at its end is no tree). Its live real rows and then its masks take the slots from
    `past[b]` on; dead rows go behind them, where nobody looks.
    """

    layout: Layout
    past: Tensor
    """(B,) int64: cached tokens of each sequence; slot s < past holds position s."""
    pads: Tensor | None = None
    """(B,) int64: dead rows at the front of each sequence; None when there are none."""
    longest: int | None = None
    """The largest of `past`, where the host knows it: reading it from a device would make the host wait."""

    @property
    def used(self) -> int:
        """Slots that hold something once the call has run."""
        return (int(self.past.max()) if self.longest is None else self.longest) + self.layout.rows

    def __post_init__(self) -> None:
        if self.pads is not None and not self.layout.tree.is_chain:
            raise ValueError("drafts that branch leave no dead rows in front")

    def positions(self) -> Tensor:
        """(B, T) int64: position of every row; dead rows stand at 0 or later and never past a live one."""
        steps = self.layout.draw(self.past.device).steps
        if self.pads is None:
            return self.past[:, None] + steps
        return ((self.past - self.pads)[:, None] + steps).clamp(min=0)

    def slots(self) -> Tensor:
        """(B, T) int64: slot that each row's K/V go to, distinct within a sequence."""
        rows = torch.arange(self.layout.rows, device=self.past.device)
        if self.pads is None:
            return self.past[:, None] + rows
        return self.past[:, None] + (rows - self.pads[:, None]) % self.layout.rows

    def sight(self, slots: int, window: int | None = None) -> Tensor:
        """(B, 1, T, S) bool: what each row sees of the first `slots` slots.

        `window`, in positions, is the reach of a sliding-window layer: a key is seen while query - key < window.
        Stale slots (behind the last row of the call) are seen by nobody.
        """
        drawing, rows = self.layout.draw(self.past.device), self.layout.rows
        relative = torch.arange(slots, device=self.past.device) - self.past[:, None]
        row = (relative if self.pads is None else relative + self.pads[:, None]) % rows
        own = (relative >= 0) & (relative < rows)
        seen = drawing.sight[:, row].transpose(0, 1)
        if self.pads is not None:
            alive = (row >= self.pads[:, None])[:, None]
            itself = torch.arange(rows, device=row.device)[:, None] == row[:, None]
            seen = (seen & alive) | itself
        seen = (seen & own[:, None]) | (relative < 0)[:, None]
        if window is not None:
            seen = seen & self._near(row, own, window)
        return seen[:, None]

    def _near(self, row: Tensor, own: Tensor, window: int) -> Tensor:
        """(B, T, S) bool: keys less than `window` positions behind the query."""
        positions = self.positions()
        slot = torch.arange(row.shape[1], device=row.device).expand_as(row)
        key = torch.where(own, positions.gather(1, row), slot)
        return positions[:, :, None] - key[:, None, :] < window
