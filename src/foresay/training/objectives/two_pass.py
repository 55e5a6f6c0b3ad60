"""One training step in two passes: the gradients of the paper's packed pass at a fraction of its memory.

With the gate closed on real rows and masks invisible to them, no trained weight touches a real row inside the base.
So the base pass runs once without gradient and keeps K/V and states; the mask pass, with gradient, runs mask rows
only, in chunks of blocks that never see each other.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foresay.models.base.cache import KeptCache
from foresay.models.layout.documents import MaskCall
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.loop.progress import Losses
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.losses import Teacher, backward_in_chunks, consistency_sum, head_loss, teach


@dataclass(frozen=True, slots=True)
class Kept:
    """What the base pass leaves for the mask pass."""

    cache: KeptCache
    states: Tensor
    """(B, R, D)."""
    teacher: Teacher


@dataclass(frozen=True, slots=True)
class MaskRows:
    """The mask rows of some anchors: N rows with a label, among the B x T of the call."""

    call: MaskCall
    live: Tensor
    """(B, T) bool: rows whose label exists and carries loss."""
    places: Tensor
    """(B, T) int64: the real row that stands where it does; the label is the token after that."""
    weights: Tensor
    """(B, T) float: weight of the row in the losses of the heads, 0 where it is not live."""


@dataclass(frozen=True, slots=True)
class Denominators:
    """Counts over the whole batch."""

    rows: float
    """Rows that the losses of the heads average over, each as often as its weight says."""
    real: int
    """Real rows that carry loss: the consistency loss averages over them, those with an empty S_t too."""
    shares: Tensor
    """(B, R) float: 1 / |S_t| for every real row t, 0 where no processed mask stands."""

    def of(self, sequences: slice) -> "Denominators":
        """The same counts, for rows of these sequences."""
        return replace(self, shares=self.shares[sequences])


def two_pass(model: MaskModel, batch: Batch, config: LossConfig, chunk_anchors: int = 0) -> Losses:
    """Add the gradients of the batch's own sequences to the adapter and return their loss parts.

    Denominators are those of the whole batch, so that parts and gradients of all processes add up to the step's.

    `chunk_anchors` anchors of every sequence go through the mask pass at once (0: all); the result does not depend on
    it. The base runs in eval mode; nothing of size rows x vocabulary outlives a chunk.
    Raises ValueError for sequences past the base's first limit, where longrope switches: a chunk of early rows alone
    would run at other frequencies than the rows it looks back to.
    """
    length, limit = batch.documents.longest, model.base.limits[0]
    if length > limit:
        raise ValueError(f"sequences of {length} tokens reach past position {limit} of the base; cut them there")
    size = batch.masks or model.config.num_masks
    counts = count(batch, size, config).of(batch.own)
    batch = batch.mine()
    kept = base_pass(model, batch, batch.carries if config.real_rows else counts.shares > 0)
    step = TwoPassStep(model, batch, config, kept, counts)
    losses = Losses(base=kept.teacher.cross_entropy / counts.rows if config.real_rows else 0.0)
    losses.total = config.base_weight * losses.base
    if config.real_rows:
        losses.add(step.real_rows())
    for anchors in torch.split(batch.anchors, chunk_anchors or batch.anchors.shape[1], dim=1):
        losses.add(step.mask_rows(mask_rows(batch, anchors, size, config)))
    return losses


def base_pass(model: MaskModel, batch: Batch, taught: Tensor) -> Kept:
    """Run the sequences once through the frozen base, without gradient; ask it about the rows `taught` (B, R) bool."""
    cache, states = model.keep(batch.ids, batch.documents)
    base = model.base
    return Kept(cache, states, teach(base.unembed, base.vocabulary, states, batch.ids, taught))


def mask_rows(batch: Batch, anchors: Tensor, size: int, config: LossConfig) -> MaskRows:
    """The mask rows of `anchors` (B, A), and which of them have a label that carries loss, and how much."""
    starts, first = batch.documents.starts, anchors.clamp(min=0)
    call = MaskCall(first, size, last=batch.ids.shape[1] - 1, starts=starts.gather(1, first))
    places = call.places()
    # Past the end, the last row stands in for a label; it carries none.
    asked = (anchors >= 0).repeat_interleave(size, dim=1)
    own = starts.gather(1, places) == starts.gather(1, first).repeat_interleave(size, dim=1)
    live = asked & own & batch.carries.gather(1, places)
    return MaskRows(call, live, places, live * mask_weights(size, config, anchors.device)[call.mask_indices()])


def mask_weights(size: int, config: LossConfig, device: torch.device) -> Tensor:
    """(size,) float: weight of mask 1, 2, ... in the losses of the heads."""
    given = config.position_weights or (1.0,)
    return torch.tensor([given[min(mask, len(given) - 1)] for mask in range(size)], device=device)


def count(batch: Batch, size: int, config: LossConfig) -> Denominators:
    """Count rows over the whole batch, before any chunking."""
    rows = mask_rows(batch, batch.anchors, size, config)
    standing = torch.zeros(batch.ids.shape, device=batch.ids.device)
    standing.scatter_add_(1, rows.places, rows.live.float())
    shares = torch.where(standing > 0, 1 / standing.clamp(min=1), 0.0)
    real, masks = int(batch.carries.sum()), float(rows.weights.sum())
    return Denominators((masks + (real if config.real_rows else 0)) or 1.0, max(real, 1), shares)


@dataclass(frozen=True, slots=True)
class _Places:
    """N rows with a label."""

    sequence: Tensor
    """(N,) int64."""
    position: Tensor
    """(N,) int64: real row."""
    weights: Tensor
    """(N,) float."""

    def __getitem__(self, some: slice) -> "_Places":
        return _Places(self.sequence[some], self.position[some], self.weights[some])


@dataclass(frozen=True, slots=True)
class TwoPassStep:
    """What the losses of a step are made of."""

    model: MaskModel
    batch: Batch
    config: LossConfig
    kept: Kept
    counts: Denominators

    def mask_rows(self, rows: MaskRows) -> Losses:
        """Forward and backward of one chunk of blocks."""
        return self.pay(rows, self.model.see_masks(rows.call, self.kept.cache))

    def pay(self, rows: MaskRows, states: Tensor) -> Losses:
        """Losses of mask rows by their states (B, T, D), backward included."""
        config, losses = self.config, Losses()
        sequence, row = rows.live.nonzero().unbind(1)
        places = _Places(sequence, rows.places[sequence, row], rows.weights[sequence, row])

        def loss(some: slice, states: Tensor) -> Tensor:
            at = places[some]
            targets, teacher = self._targets(at), self._teacher(at)
            base = self._head(at, states, targets, teacher)
            sampled = self._head(at, self._sample(at, states), targets, teacher)
            shares = self.counts.shares[at.sequence, at.position]
            apart = consistency_sum(states, self._real(at), shares, config.consistency_over) / self.counts.real
            total = config.base_weight * base + config.sampler_weight * sampled + config.consistency_weight * apart
            losses.add(Losses(base.item(), sampled.item(), apart.item(), total.item(), len(at.sequence)))
            return total

        backward_in_chunks(states[sequence, row], self.model.base.vocabulary, loss)
        return losses

    def real_rows(self) -> Losses:
        """The sampler's loss on real rows: straight from the kept states."""
        losses = Losses()
        sequence, row = self.batch.carries.nonzero().unbind(1)
        places = _Places(sequence, row, torch.ones(len(row), device=row.device))

        def loss(some: slice, states: Tensor) -> Tensor:
            at = places[some]
            sampled = self._head(at, self._sample(at, states), self._targets(at), self._teacher(at))
            total = self.config.sampler_weight * sampled
            losses.add(Losses(sampler=sampled.item(), total=total.item()))
            return total

        backward_in_chunks(self._real(places), self.model.base.vocabulary, loss)
        return losses

    def _head(self, at: _Places, states: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
        """Loss of the head that reads `states` (N, D), over its denominator."""
        rows = head_loss(self.model.base.unembed(states), targets, teacher, self.config)
        return (rows * at.weights).sum() / self.counts.rows

    def _real(self, at: _Places) -> Tensor:
        """States (N, D) of the real rows at the same positions."""
        return self.kept.states[at.sequence, at.position]

    def _sample(self, at: _Places, states: Tensor) -> Tensor:
        """States (N, D) of the sampler head, which is told the true token before."""
        return self.model.sample(self.batch.ids[at.sequence, at.position], states)

    def _targets(self, at: _Places) -> Tensor:
        """Hard targets (N,) int64."""
        if self.config.target == "base_argmax":
            return self.kept.teacher.argmax[at.sequence, at.position]
        return self.batch.ids[at.sequence, at.position + 1]

    @torch.no_grad()
    def _teacher(self, at: _Places) -> Tensor | None:
        """Logits (N, V) of the base at the same positions, when they are distilled."""
        return self.model.base.unembed(self._real(at)) if self.config.distils else None
