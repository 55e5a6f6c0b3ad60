"""The losses of a training step as pure functions over rows (paper A, section 4). Every one returns a sum.

Denominators are counted over the whole batch beforehand, so that sums over chunks add up to the same loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ROWS_AT_ONCE = 2048


@dataclass(slots=True)
class Losses:
    """Loss parts of a step, as floats, each already divided by its denominator and not yet weighted."""

    base: float = 0.0
    sampler: float = 0.0
    consistency: float = 0.0
    total: float = 0.0

    def add(self, other: "Losses") -> None:
        """Add the parts of another chunk."""
        self.base += other.base
        self.sampler += other.sampler
        self.consistency += other.consistency
        self.total += other.total


def in_chunks(rows: Tensor) -> tuple[Tensor, ...]:
    """`rows` cut so that the logits of one chunk, rows x vocabulary, stay small."""
    return torch.split(rows, ROWS_AT_ONCE)  # type: ignore[no-any-return, no-untyped-call]


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of -log p(target): `logits` (N, V) of any float dtype, `targets` (N,) int64."""
    return functional.cross_entropy(logits.float(), targets, reduction="sum")


def consistency_sum(states: Tensor, anchors: Tensor, shares: Tensor) -> Tensor:
    """Latent consistency (paper A, eq. 1), mean over the width.

    `states` (N, D) of mask rows; `anchors` (N, D) states of the real rows at the same positions, never a source of
    gradient; `shares` (N,) = 1 / |S_t| of each row's position.
    """
    distance = (states.float() - anchors.detach().float()).pow(2).mean(dim=-1)
    return (distance * shares).sum()


@dataclass(frozen=True, slots=True)
class Teacher:
    """What the frozen base says at real rows, from the base pass."""

    argmax: Tensor
    """(B, R) int64: the base's next token at every row that carries loss, -1 elsewhere."""
    cross_entropy: float
    """Sum of the base's own cross-entropy over those rows."""


@torch.no_grad()
def teach(unembed: Callable[[Tensor], Tensor], states: Tensor, ids: Tensor, carries: Tensor) -> Teacher:
    """The base's argmax and cross-entropy at the rows in `carries`, a few rows at a time.

    `states` (B, R, D), `ids` (B, R) int64, `carries` (B, R) bool: row t predicts a token of the loss.
    """
    argmax = torch.full_like(ids, -1)
    rows = carries.nonzero()
    total = 0.0
    for some in in_chunks(rows):
        sequence, row = some.unbind(1)
        logits = unembed(states[sequence, row])
        argmax[sequence, row] = logits.argmax(-1)
        total += cross_entropy_sum(logits, ids[sequence, row + 1]).item()
    return Teacher(argmax, total)
