"""Where the rows of a call stand and what each may see. Pure: no model, no weights.

Real rows come first, mask rows after them. A mask row belongs to an anchor (a real row) at an offset j = 1..k and
stands at the anchor's position + j. What is visible: a real row sees real rows up to itself; a mask row sees real rows
up to its anchor, itself and the earlier masks of its own block; nobody else sees a mask. Where drafts branch, "up to"
means "on the way to the root".
(Paper A, sections 3 and 5, in another order of rows: order is free because attention masks and positions are explicit.)

Letters: B batch, T rows of a call, R real rows, S slots, K masks of the largest block.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from foresay.foundation.errors import require
from foresay.foundation.names import OWN_LAYOUTS
from foresay.models.layout.tree import Tree

NO_DRAFTS = Tree()


@dataclass(frozen=True, slots=True)
class Block:
    """`size` masks after the real row `anchor`."""

    anchor: int
    size: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """A layout as tensors on one device."""

    offsets: Tensor
    """(T,) int64: position of a row, counted from the first real row's."""
    mask_indices: Tensor
    """(T - R,) int64: j - 1 of each mask row, the index of its embedding."""
    anchors: Tensor
    """(T - R,) int64: the real row that each mask row belongs to."""
    visible: Tensor
    """(T, T) bool: row t sees row u of the same call."""
    block_rows: Tensor
    """(R, K) int64: rows of the block after each real row; past its size, row T - 1 stands in and is not read."""
    block_sizes: Tensor
    """(R,) int64: masks after each real row."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The rows of one call: real rows, then blocks of masks after some of them.

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
                raise ValueError(f"{block} does not belong to one of {self.real} real rows")

    @classmethod
    def plain(cls, real: int = 1, tree: Tree = NO_DRAFTS) -> "Layout":
        """Real rows only."""
        return cls(real, (), tree)

    @classmethod
    def linear(cls, real: int, masks: int, tree: Tree = NO_DRAFTS) -> "Layout":
        """Masks after the last real row (paper A, linear decoding; also prefill)."""
        return cls(real, _blocks({real - 1: masks}), tree)

    @classmethod
    def quadratic(cls, real: int, masks: int, tree: Tree = NO_DRAFTS) -> "Layout":
        """Masks after every real row, the newest verified token included: (k+1)^2 rows for k drafts in a chain."""
        return cls(real, _blocks(dict.fromkeys(range(real), masks)), tree)

    @classmethod
    def training(cls, real: int, anchors: tuple[int, ...], masks: int) -> "Layout":
        """Masks after chosen real rows (the paper's packed training pass)."""
        return cls(real, _blocks(dict.fromkeys(anchors, masks)))

    @property
    def trunk(self) -> int:
        """Real rows up to the root."""
        return self.real - self.tree.drafts

    @property
    def offsets(self) -> tuple[int, ...]:
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

    def size_after(self, anchor: int) -> int:
        """Masks after the real row `anchor`."""
        return next((block.size for block in self.blocks if block.anchor == anchor), 0)

    def within(self, room: int) -> "Layout":
        """The layout with no row more than `room` positions past the first: drafts and blocks end there."""
        if room >= self.rows:
            return self
        offsets = self.offsets
        real = sum(offset <= room for offset in offsets)
        sizes = {b.anchor: min(b.size, room - offsets[b.anchor]) for b in self.blocks if b.anchor < real}
        return Layout(real, _blocks(sizes), self.tree.first(max(real - self.trunk, 0)))

    def draw(self, device: torch.device) -> Drawing:
        """The layout as tensors, made once for each device."""
        return _draw(self, device)


DRAWINGS: dict[str, Callable[[int, int, Tree], Layout]] = {
    "plain": lambda real, masks, tree: Layout.plain(real, tree),
    "linear": Layout.linear,
    "quadratic": Layout.quadratic,
    "tree": Layout.quadratic,
}
"""Every fixed layout of `DecodeConfig` by name: (real rows, masks of a block, tree of the drafts) -> layout. Those that
`add_layout` added stand here too."""


def add_layout(name: str, draw: Callable[[int, int], Layout]) -> None:
    """Make `draw` a layout of its own, which `DecodeConfig(layout=name)` takes from now on, in this process.

    `draw` gets the real rows of a step (the newest token and its drafts) and the masks of a block, and says after which
    real rows blocks stand. The output is the base's own whatever it says; where no block stands after the last accepted
    row, the next step has no drafts. Prompts are read with one block at their end. Raises ConfigError for a name that
    is taken, or a drawing with other real rows.

        add_layout("ends", lambda real, masks: Layout.training(real, (0, real - 1), masks))
    """
    require(name not in (*DRAWINGS, "planned"), f"layout {name!r} is there already; give another name")
    real = draw(3, 2).real
    require(real == 3, f"layout {name!r} draws {real} real rows of 3; keep all of them, in their order")
    DRAWINGS[name] = lambda real, masks, tree: replace(draw(real, masks), tree=tree)
    OWN_LAYOUTS.add(name)


def _blocks(sizes: dict[int, int]) -> tuple[Block, ...]:
    return tuple(Block(anchor, size) for anchor, size in sizes.items() if size >= 1)


@lru_cache(maxsize=256)
def _draw(layout: Layout, device: torch.device) -> Drawing:
    real, rows = layout.real, layout.rows
    largest, root = max((block.size for block in layout.blocks), default=0), layout.trunk - 1
    offsets = torch.tensor([*layout.offsets, *[0] * layout.masks])
    visible = torch.zeros(rows, rows, dtype=torch.bool)
    visible[:real, : root + 1] = torch.ones(real, root + 1, dtype=torch.bool).tril()
    visible[root:real, root:real] = layout.tree.draw(torch.device("cpu")).ways
    block_rows = torch.full((real, largest), rows - 1)
    block_sizes = torch.zeros(real, dtype=torch.int64)
    indices, anchors, start = [], [], real
    for block in layout.blocks:
        end = start + block.size
        inside = torch.arange(block.size)
        offsets[start:end] = offsets[block.anchor] + 1 + inside
        visible[start:end, :real] = visible[block.anchor, :real]
        visible[start:end, start:end] = torch.ones(block.size, block.size, dtype=torch.bool).tril()
        block_rows[block.anchor, : block.size] = start + inside
        block_sizes[block.anchor] = block.size
        indices.append(inside)
        anchors += [block.anchor] * block.size
        start = end
    stacked = torch.cat(indices) if indices else torch.zeros(0, dtype=torch.int64)
    tensors = (offsets, stacked, torch.tensor(anchors, dtype=torch.int64), visible, block_rows, block_sizes)
    return Drawing(*(tensor.to(device) for tensor in tensors))
