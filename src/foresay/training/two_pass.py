"""One training step in two passes: the gradients of the paper's packed pass at a fraction of its memory.

With the gate closed on real rows and masks invisible to them, no trained weight touches a real row inside the base.
So the base pass runs once without gradient and keeps K/V and states; the mask pass, with gradient, runs mask rows
only, in chunks of blocks that never see each other.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from foresay.config import LossConfig
from foresay.layout import MaskCall
from foresay.modelling.cache import KeptCache
from foresay.modelling.model import MaskModel
from foresay.training.losses import Losses, Teacher, consistency_sum, cross_entropy_sum, in_chunks, teach


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of a step and the anchors whose blocks it processes."""

    ids: Tensor
    """(B, R) int64, padded behind."""
    carries: Tensor
    """(B, R) bool: row t predicts a token that carries loss (the last prompt token does, the last token never)."""
    anchors: Tensor
    """(B, A) int64: rows that carry a block, -1 for none."""


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
    positions: Tensor
    """(B, T) int64: where the row stands; its label is the token behind."""


@dataclass(frozen=True, slots=True)
class Denominators:
    """Counts over the whole batch."""

    rows: int
    """Rows that both cross-entropies average over."""
    real: int
    """Real rows that carry loss: the consistency loss averages over them, those with an empty S_t too."""
    shares: Tensor
    """(B, R) float: 1 / |S_t| for every position t, 0 where no processed mask stands."""


def two_pass(model: MaskModel, batch: Batch, config: LossConfig, chunk_anchors: int = 0) -> Losses:
    """Add the step's gradients to the adapter and return its loss parts.

    `chunk_anchors` anchors of every sequence go through the mask pass at once (0: all); the result does not depend on
    it. The base runs in eval mode; nothing of size rows x vocabulary outlives a chunk.
    Raises ValueError for sequences past the base's first limit, where longrope switches: a chunk of early rows alone
    would run at other frequencies than the rows it looks back to.
    """
    length, limit = batch.ids.shape[1], model.base.limits[0]
    if length > limit:
        raise ValueError(f"sequences of {length} tokens reach past position {limit} of the base; cut them there")
    kept = base_pass(model, batch)
    counts = count(batch, model.config.num_masks, config)
    losses = Losses(base=kept.teacher.cross_entropy / counts.rows if config.real_rows else 0.0)
    losses.total = config.base_weight * losses.base
    if config.real_rows:
        losses.add(_real_sampler_pass(model, batch, kept, counts, config))
    for anchors in torch.split(batch.anchors, chunk_anchors or batch.anchors.shape[1], dim=1):
        rows = mask_rows(batch, anchors, model.config.num_masks)
        if rows.live.any():
            losses.add(_mask_pass(model, batch, rows, kept, counts, config))
    return losses


def base_pass(model: MaskModel, batch: Batch) -> Kept:
    """Run the sequences once through the frozen base, without gradient."""
    cache, states = model.keep(batch.ids)
    return Kept(cache, states, teach(model.base.unembed, states, batch.ids, batch.carries))


def mask_rows(batch: Batch, anchors: Tensor, size: int) -> MaskRows:
    """The mask rows of `anchors` (B, A) and which of them have a label that carries loss."""
    call = MaskCall(anchors.clamp(min=0), size, last=batch.ids.shape[1] - 1)
    positions = call.positions()
    steps = torch.arange(1, size + 1, device=anchors.device)
    inside = (anchors[:, :, None] + steps).flatten(1) < batch.ids.shape[1]
    asked = (anchors >= 0).repeat_interleave(size, dim=1)
    return MaskRows(call, inside & asked & batch.carries.gather(1, positions), positions)


def count(batch: Batch, size: int, config: LossConfig) -> Denominators:
    """Count rows over the whole batch, before any chunking."""
    rows = mask_rows(batch, batch.anchors, size)
    standing = torch.zeros(batch.ids.shape, device=batch.ids.device)
    standing.scatter_add_(1, rows.positions, rows.live.float())
    shares = torch.where(standing > 0, 1 / standing.clamp(min=1), 0.0)
    real, masks = int(batch.carries.sum()), int(rows.live.sum())
    return Denominators(max(masks + (real if config.real_rows else 0), 1), max(real, 1), shares)


def _mask_pass(
    model: MaskModel, batch: Batch, rows: MaskRows, kept: Kept, counts: Denominators, config: LossConfig
) -> Losses:
    """Forward and backward of one chunk of blocks."""
    sequence, row = rows.live.nonzero().unbind(1)
    position = rows.positions[sequence, row]
    states = model.see_masks(rows.call, kept.cache)[sequence, row]
    labels = batch.ids[sequence, position + 1]
    targets = kept.teacher.argmax[sequence, position] if config.target == "base_argmax" else labels
    leaf = states.detach().requires_grad_()
    losses = Losses()
    for some in in_chunks(torch.arange(len(states), device=states.device)):
        base = cross_entropy_sum(model.base.unembed(leaf[some]), targets[some]) / counts.rows
        previous = batch.ids[sequence[some], position[some]]
        sampled = cross_entropy_sum(model.base.unembed(model.sample(previous, leaf[some])), targets[some]) / counts.rows
        anchors, shares = kept.states[sequence[some], position[some]], counts.shares[sequence[some], position[some]]
        apart = consistency_sum(leaf[some], anchors, shares) / counts.real
        total = config.base_weight * base + config.sampler_weight * sampled + config.consistency_weight * apart
        total.backward()  # type: ignore[no-untyped-call]
        losses.add(Losses(base.item(), sampled.item(), apart.item(), total.item()))
    states.backward(leaf.grad)  # type: ignore[no-untyped-call]
    return losses


def _real_sampler_pass(model: MaskModel, batch: Batch, kept: Kept, counts: Denominators, config: LossConfig) -> Losses:
    """The sampler's cross-entropy on real rows: straight from the kept states, a few rows at a time."""
    losses = Losses()
    for some in in_chunks(batch.carries.nonzero()):
        sequence, row = some.unbind(1)
        logits = model.base.unembed(model.sample(batch.ids[sequence, row], kept.states[sequence, row]))
        labels = batch.ids[sequence, row + 1]
        targets = kept.teacher.argmax[sequence, row] if config.target == "base_argmax" else labels
        sampled = cross_entropy_sum(logits, targets) / counts.rows
        (config.sampler_weight * sampled).backward()  # type: ignore[no-untyped-call]
        losses.add(Losses(sampler=sampled.item(), total=config.sampler_weight * sampled.item()))
    return losses
