"""What the next call holds: which real rows, and where masks stand."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foresay.decoding.planning.planner import Entry
from foresay.models.base.transfer import to_device
from foresay.models.layout.layout import DRAWINGS, Layout
from foresay.models.layout.tree import Tree


@dataclass(frozen=True, slots=True)
class PendingRows:
    """What one sequence brings to the next call: tokens that are not cached yet, the drafts among them last."""

    past: int
    """Tokens cached."""
    fresh: int
    """Real rows: the prompt, or the newest token and its drafts."""
    drafted: int
    """How many of the fresh rows are drafts."""

    def first(self, drafts: int) -> "PendingRows":
        """With at most so many drafts."""
        dropped = max(self.drafted - drafts, 0)
        return PendingRows(self.past, self.fresh - dropped, self.drafted - dropped)

    @property
    def newest(self) -> int:
        """Position of the last verified token, after which the drafts follow."""
        return self.past + self.fresh - self.drafted - 1


@dataclass(frozen=True, slots=True)
class Plan:
    """One call, ready to be seen."""

    rows: tuple[PendingRows, ...]
    layout: Layout
    tree: Tree
    """How the drafts of the next call will be linked, should all be made."""
    usual: bool = False
    """Its shape is one of the few that most steps have: all drafts or none to verify, and all masks."""

    @property
    def judged(self) -> int:
        """Rows of drafts; sequences may have fewer drafts."""
        return self.layout.tree.drafts

    @property
    def unembedded(self) -> int:
        """Real rows, from the last, that get logits: the judged and, but for a prompt, the dead: few shapes again."""
        return self.layout.real if self.layout.real <= self.tree.drafts + 1 else self.judged + 1

    def pads(self) -> list[int]:
        """Dead rows in front of each sequence."""
        return [self.layout.real - row.fresh for row in self.rows]

    def table(self) -> list[list[int]]:
        """What `Aligned` is made from, 3 numbers a sequence."""
        return [[row.past for row in self.rows], [row.drafted for row in self.rows], self.pads()]

    def aligned(self, device: torch.device) -> "Aligned":
        """Its numbers on the device, in one transfer."""
        return Aligned.of(self.layout, to_device(self.table(), device), any(self.pads()))


@dataclass(frozen=True, slots=True)
class Aligned:
    """The rows of a plan where they are computed on, as few tensors."""

    layout: Layout
    past: Tensor
    """(B,) int64: cached tokens."""
    drafts: Tensor
    """(B,) int64: drafts among the real rows."""
    pads: Tensor | None
    """(B,) int64: dead rows in front; None where there are none."""

    @classmethod
    def of(cls, layout: Layout, table: Tensor, padded: bool) -> "Aligned":
        """From `Plan.table` (3, B) int64."""
        past, drafts, pads = table
        return cls(layout, past, drafts, pads if padded else None)

    def tokens(self, pending: Tensor) -> Tensor:
        """Real rows of the call, aligned to the right: `pending` (B, any) int64, aligned to the left -> (B, R)."""
        real = self.layout.real
        if self.pads is None:
            return pending[:, :real]
        rows = torch.arange(real, device=pending.device) - self.pads[:, None]
        return pending.gather(1, rows.clamp(0, pending.shape[1] - 1))

    def distributions(self, q: Tensor) -> Tensor:
        """`q` (B, any, V), aligned to the left as drafts are made -> (B, N, V), aligned to the right as judged."""
        judged = self.layout.tree.drafts
        rows = torch.arange(judged, device=q.device) - (judged - self.drafts)[:, None]
        return q.gather(1, rows.clamp(0, q.shape[1] - 1)[:, :, None].expand(-1, -1, q.shape[2]))


def plan(rows: Sequence[PendingRows], entry: Entry, tree: Tree, limits: Sequence[int]) -> Plan:
    """Place the masks of `entry` and keep every row before the next limit.

    Drafts are linked as in `tree`, and those that it has no place for are dropped. `limits` are positions that no
    call may straddle, ascending (`Base.limits`). A prompt carries one block, after its last token, in every layout
    with masks. A chain of drafts has room for all that the entry verifies, used or not: compilation wants few shapes.
    """
    newest = max(row.newest for row in rows)
    limit = next((limit for limit in limits if limit > newest), limits[-1])
    clipped = _clip(rows, tree, limit)
    real, drafted = max(row.fresh for row in clipped), max(row.drafted for row in clipped)
    prefill = real > drafted + 1
    if drafted and not prefill and tree.is_chain and newest + tree.drafts < limit:
        real = tree.drafts + 1
    name = "linear" if prefill and entry.layout != "plain" else entry.layout
    first = max(row.past + row.fresh for row in clipped) - real
    drawn = DRAWINGS[name](real, entry.masks, tree.first(0 if prefill else real - 1))
    layout = drawn.within(limit - 1 - first)
    usual = not prefill and real in (1, tree.drafts + 1) and layout == drawn
    return Plan(clipped, layout, tree, usual)


def _clip(rows: Sequence[PendingRows], tree: Tree, limit: int) -> tuple[PendingRows, ...]:
    """Without the drafts that `tree` has no place for or that would stand at position `limit` or later."""
    clipped = tuple(row.first(tree.within(limit - 1 - row.newest).drafts) for row in rows)
    if tree.is_chain:
        return clipped
    # Branching drafts cannot be aligned to the right, so every sequence has as many as the one with fewest.
    fewest = min(row.drafted for row in clipped)
    return tuple(row.first(fewest) for row in clipped)
