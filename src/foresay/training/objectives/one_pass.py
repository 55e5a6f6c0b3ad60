"""The paper's training pass, plainly: x0 m1..mk x1 m1..mk ... in one call (paper A, sections 3 and 4).

It is what two passes are compared with, so it shares neither layout, gate nor counting with them: what is visible is a
rule for a pair of rows, LoRA is applied by hooks of its own with a 0/1 number for each row, losses are averages over
lists of rows. And it is the only way to train LoRA that acts on every row (*standard* LoRA, paper A's Fig. 6), which
reaches the real rows and so leaves nothing that a pass without gradient could keep. It takes the memory that two passes
spare.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from foresay.models.base.cache import SlotCache
from foresay.models.base.model import Rows
from foresay.models.masks.lora import GatedLora
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.loop.progress import Losses
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.losses import cross_entropy, head_loss


@dataclass(frozen=True, slots=True)
class Pack:
    """A sequence of L tokens and its masks, T rows interleaved as the paper draws them."""

    ids: Tensor
    """(L,) int64."""
    carries: Tensor
    """(L,) bool: the token's row predicts a token that carries loss."""
    anchor: Tensor
    """(T,) int64: the row's token, or the one that its block belongs to."""
    mask: Tensor
    """(T,) int64: 0 for a token, 1..k for the masks after it."""

    @property
    def position(self) -> Tensor:
        """(T,) int64; the token after this position is the row's label."""
        return self.anchor + self.mask

    @property
    def own(self) -> Tensor:
        """(L,) int64: the row of each token."""
        return (self.mask == 0).nonzero()[:, 0]

    @property
    def asked(self) -> Tensor:
        """(N,) int64: rows whose label exists and carries loss."""
        return self.carries[self.position].nonzero()[:, 0]

    def visible(self, window: int | None) -> Tensor:
        """(1, 1, T, T) bool: whether a row (query, down) sees another (key, across)."""
        query, key = (slice(None), None), (None, slice(None))
        text = (self.mask[key] == 0) & (self.anchor[key] <= self.anchor[query])
        block = (self.anchor[key] == self.anchor[query]) & (self.mask[key] <= self.mask[query])
        seen = text | block
        if window is not None:
            seen &= self.position[query] - self.position[key] < window
        return seen[None, None]


def packs(batch: Batch, masks: int) -> list[Pack]:
    """The sequences of a batch without their padding, `masks` after each anchor; those without loss are left out."""
    packed = []
    for ids, carries, anchors in zip(batch.ids, batch.carries, batch.anchors):
        if carries.any():
            length = int(carries.nonzero().max()) + 2
            packed.append(_pack(ids[:length], carries[:length], set(anchors.tolist()), masks))
    return packed


def _pack(ids: Tensor, carries: Tensor, anchors: set[int], masks: int) -> Pack:
    rows = []
    for token in range(len(ids)):
        # Masks past the end have no label, and nobody with a label sees them.
        size = min(masks, len(ids) - 1 - token) if token in anchors else 0
        rows += [(token, mask) for mask in range(size + 1)]
    anchor, mask = torch.tensor(rows, device=ids.device).unbind(1)
    return Pack(ids, carries, anchor, mask)


def see_packed(model: MaskModel, pack: Pack, acts: Tensor) -> Rows:
    """One call for all rows: logits (1, T, V) and states (1, T, D); LoRA acts on a row as `acts` (T,) says, 0 or 1."""
    base, rows = model.base, torch.arange(len(pack.mask), device=pack.ids.device)
    masks = model.adapter.mask_embeddings.to(base.dtype)[(pack.mask - 1).clamp(min=0)]
    embeds = torch.where((pack.mask > 0)[:, None], masks, base.embedding(pack.ids)[pack.anchor])
    cache = SlotCache(base.layers, len(rows))
    cache.place(rows[None], len(rows))
    model.detach_hooks()
    with _low_rank(model, acts):
        return base.run(embeds[None], pack.position[None], base.attention_masks(pack.visible), cache, rows)


def acting(pack: Pack, everywhere: bool) -> Tensor:
    """(T,) float: 1 for mask rows, or for all of them."""
    return torch.ones_like(pack.mask, dtype=torch.float32) if everywhere else (pack.mask > 0).float()


@contextmanager
def standard_lora(model: MaskModel) -> Iterator[None]:
    """LoRA acts on every row of whatever the base is called with while the block runs."""
    model.detach_hooks()
    with _low_rank(model, torch.ones(1, device=model.base.device)):
        yield


@contextmanager
def _low_rank(model: MaskModel, acts: Tensor) -> Iterator[None]:
    """Every adapted linear gives `W x + acts * low-rank product` while the block runs; one number in `acts` is for all
    rows."""
    linears = model.base.linears().adapted
    handles = [linears[pair.name].register_forward_hook(_hook(pair, acts)) for pair in model.adapter.pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(pair: GatedLora, acts: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        product: Tensor = pair(args[0]).view(len(acts), -1)
        return output + (acts[:, None].to(product.dtype) * product).view_as(output)

    return add


def one_pass(model: MaskModel, batch: Batch, config: LossConfig, everywhere: bool = False) -> Losses:
    """Add the gradients of the batch's own sequences to the adapter and return their loss parts, as `two_pass` does.

    `everywhere`: LoRA acts on every row (standard LoRA), not on mask rows only. Sequences go one by one; each holds one
    document. Raises ValueError for packed ones.
    """
    if batch.starts is not None and batch.documents.starts[batch.carries].any():
        raise ValueError("one pass takes one document a sequence; do not pack them")
    packed = packs(batch, batch.masks or model.config.num_masks)
    rows = sum(float(_weights(pack, config).sum()) for pack in packed) or 1.0
    real = sum(int(pack.carries.sum()) for pack in packed) or 1
    losses = Losses()
    for pack in packed[batch.own]:
        seen = see_packed(model, pack, acting(pack, everywhere))
        base, sampler = (part / rows for part in _heads(model, pack, seen, config))
        consistency = _consistency(pack, seen.states[0], config) / real
        total = config.base_weight * base + config.sampler_weight * sampler + config.consistency_weight * consistency
        total.backward()  # type: ignore[no-untyped-call]
        losses.add(Losses(base.item(), sampler.item(), consistency.item(), total.item()))
    return losses


def _weights(pack: Pack, config: LossConfig) -> Tensor:
    """(N,) float: how much the asked rows count in the losses of the heads."""
    given = [float(config.real_rows), *(config.position_weights or (1.0,))]
    last = len(given) - 1
    return torch.tensor([given[min(mask, last)] for mask in pack.mask[pack.asked].tolist()], device=pack.ids.device)


def _heads(model: MaskModel, pack: Pack, seen: Rows, config: LossConfig) -> tuple[Tensor, Tensor]:
    """What base head and sampler head pay on the asked rows, summed."""
    asked, base = pack.asked, model.base
    at, logits, states = pack.position[asked], seen.logits[0, asked], seen.states[0, asked]
    labels, teacher = pack.ids[at + 1], seen.logits[0, pack.own[at]].detach()
    targets = labels if config.target == "label" else teacher.argmax(-1)
    distilled = teacher if config.distils else None
    dtype = model.adapter.mask_embeddings.dtype
    sampled = model.adapter.sampler(base.embedding(pack.ids[at]).to(dtype), states.to(dtype)).to(states.dtype)
    own = head_loss(logits, targets, distilled, config)
    # The base's own rows are held against the data: a frozen base has nothing to learn from itself.
    own = torch.where(pack.mask[asked] == 0, cross_entropy(logits, labels), own)
    weights = _weights(pack, config)
    return (weights * own).sum(), (weights * head_loss(base.unembed(sampled), targets, distilled, config)).sum()


def _consistency(pack: Pack, states: Tensor, config: LossConfig) -> Tensor:
    """Mean distance of the masks at each position to the real row there (detached), summed over positions."""
    masks = pack.asked[pack.mask[pack.asked] > 0]
    at = pack.position[masks]
    squares = (states[pack.own[at]].detach() - states[masks]).float().square()
    distances = squares.mean(-1) if config.consistency_over == "mean" else squares.sum(-1)
    standing = torch.bincount(at, minlength=len(pack.ids))
    return (distances / standing[at]).sum()
