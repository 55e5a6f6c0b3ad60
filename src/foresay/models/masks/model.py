"""The base and its adapter as one model: the two ways a call is made, and nothing about training or decoding."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from foresay.models.base.cache import KeptCache, SlotCache
from foresay.models.base.model import Base
from foresay.models.base.packed_linears import PackedGroup
from foresay.models.base.shared_inputs import Group
from foresay.models.base.user_lora import linear_in
from foresay.models.config import MTPConfig
from foresay.models.drafting import DraftingModel, Placed, rank
from foresay.models.layout.documents import Documents, MaskCall
from foresay.models.masks.gate import Gate
from foresay.models.masks.lora import GatedLora, LoraGroup
from foresay.models.masks.sampler_head import build_sampler
from foresay.models.masks.targets import targeted

ROWS_AT_ONCE = 2048
"""Real rows that the base pass of training runs at once: their activations and what they see are all that it holds."""


class Adapter(nn.Module):
    """Everything that is trained: mask embeddings, LoRA pairs, sampler head."""

    def __init__(self, base: Base, config: MTPConfig) -> None:
        super().__init__()
        embedding, width = base.embedding.weight.shape[1], base.head.weight.shape[1]
        self.mask_embeddings = nn.Parameter(torch.full((config.num_masks, embedding), torch.nan))
        linears = base.linears().adapted
        self.loras = nn.ModuleList(
            GatedLora(name, *_shape(linears[name]), config.rank, config.scale)
            for name in targeted(linears, config.lora_targets)
        )
        self.sampler = build_sampler(config.sampler, embedding, width)
        self.mask_embeddings.requires_grad_(config.train_masks)

    @property
    def pairs(self) -> list[GatedLora]:
        """The LoRA pairs, one for each adapted linear."""
        return list(self.loras)  # type: ignore[arg-type]


class MaskModel(DraftingModel):
    """A frozen base that can also say what comes after the next token.

    `see` runs decoding calls, `keep` and `see_masks` the two passes of training.
    """

    config: MTPConfig

    def __init__(self, base: Base, config: MTPConfig) -> None:
        super().__init__(base, config)
        self.adapter = Adapter(base, config).to(base.device)
        self.gate = Gate()
        self._linears = base.linears().adapted
        self._loras: list[LoraGroup] = []
        self._grouped_by: list[Group] = []
        self._hooks: list[RemovableHandle | PackedGroup] = []

    @property
    def added(self) -> nn.Module:
        """The adapter."""
        return self.adapter

    @property
    def added_dtype(self) -> torch.dtype:
        """The base's own; float32 on a CPU, which multiplies matrices as narrow as these faster so."""
        return torch.float32 if self.base.device.type == "cpu" else self.base.dtype

    @classmethod
    def from_base(cls, model: PreTrainedModel, config: MTPConfig | None = None, seed: int = 0) -> "MaskModel":
        """A fresh, silent adapter (zero up-projections) on `model`, which is frozen and put in eval mode.

        Raises UnsupportedBase when `model` cannot be driven through explicit rows; a short probe makes sure.
        """
        mtp = cls(Base(model), config or MTPConfig())
        mtp.reset(seed)
        mtp.probe()
        return mtp

    def reset(self, seed: int) -> None:
        """Draw the starting weights of the adapter: masks at the scale of the base's embeddings, LoRA, sampler."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            sample = self.base.embedding(torch.arange(min(self.base.vocabulary, 4096), device=self.base.device))
            noise = torch.randn(self.adapter.mask_embeddings.shape, generator=generator)
            self.adapter.mask_embeddings.copy_(noise * sample.float().std().cpu())
        for lora in self.adapter.pairs:
            lora.reset(generator)
        self.adapter.sampler.reset(generator)

    def _step(self, placed: Placed, cache: SlotCache) -> tuple[Tensor, Tensor]:
        ids, mask_indices, positions, visible, kept = placed
        embeds = self.base.embedding(ids)
        if not len(mask_indices):
            seen = self.base.run(embeds, positions, visible, cache, kept)
        else:
            masks = self.adapter.mask_embeddings[mask_indices].to(embeds.dtype)
            embeds = torch.cat((embeds, masks.expand(len(ids), -1, -1)), dim=1)
            with self.gate.open(len(ids), embeds.shape[1], ids.shape[1]):
                seen = self.base.run(embeds, positions, visible, cache, kept)
        return seen.logits, seen.states

    def attach_hooks(self) -> None:
        """Attach LoRA to the base's linears, where it is not attached as it should be."""
        if self._hooks and all(group.fits for group in self._loras):
            return
        self.detach_hooks()
        current = self._loras and all(group.current for group in self._loras)
        if not current or self._grouped_by != self.groups:
            self._loras, self._grouped_by = self._lora_groups(), list(self.groups)
        self._hooks = [hook for group in self._loras for hook in group.attach(self._linears)]

    def detach_hooks(self) -> None:
        """Remove LoRA from the base's linears: a hook costs time even where the gate stays closed."""
        while self._hooks:
            self._hooks.pop().remove()

    def _lora_groups(self) -> list[LoraGroup]:
        """The pairs by what their linears read; each alone where `probe` has not seen it yet."""
        pairs = {self._linears[pair.name]: pair for pair in self.adapter.pairs}
        groups = self.groups or [(linear,) for linear in pairs]
        found = ([pairs[linear] for linear in group if linear in pairs] for group in groups)
        return [LoraGroup(some, self.gate) for some in found if some]

    @torch.no_grad()
    def keep(self, ids: Tensor, documents: Documents | None = None) -> tuple[KeptCache, Tensor]:
        """The base pass of training, without gradient: `ids` (B, R) int64, padded right, through the closed gate.

        Returns the K/V for `see_masks` and the states (B, R, D).
        """
        self.detach_hooks()
        base, documents = self.base, documents or Documents(torch.zeros_like(ids))
        cache, none = KeptCache(base.layers, ids.shape), ids.new_zeros(1)
        states = torch.empty(*ids.shape, base.head.weight.shape[1], dtype=base.dtype, device=ids.device)
        for sequences, rows in tiles(*ids.shape):
            own = documents.of(sequences)
            visible = base.attention_masks(lambda window: own.visible(rows, window))  # noqa: B023
            cache.keep(sequences, rows)
            embeds = base.embedding(ids[sequences, rows])
            states[sequences, rows] = base.run(embeds, own.positions(rows), visible, cache, none).states
        return cache, states

    def see_masks(self, call: MaskCall, cache: KeptCache) -> Tensor:
        """The mask pass of training, with gradient: states (B, A * k, D) of the call's masks after the kept rows."""
        base = self.base
        embeds = self.adapter.mask_embeddings[call.mask_indices()].to(base.dtype).expand(len(call.anchors), -1, -1)
        cache.read(base.reads_kept_rows)
        self.attach_hooks()
        with base.turn, self.gate.open(len(call.anchors), call.rows, 0):
            if base.reads_kept_rows:
                return base.run_masks(embeds, call, cache)
            visible = base.attention_masks(lambda window: call.visible(cache.shape[1], window))
            return base.run(embeds, call.positions(), visible, cache, call.anchors.new_zeros(1)).states

    def sample(self, previous: Tensor, states: Tensor) -> Tensor:
        """States to unembed (..., D) by the sampler head: `previous` (...) int64 tokens before, `states` (..., D)."""
        dtype = self.adapter.mask_embeddings.dtype
        embedded = self.base.embedding(previous).to(dtype)
        sampled: Tensor = self.adapter.sampler(embedded, states.to(dtype))
        return sampled.to(states.dtype)

    def guess(self, previous: Tensor, states: Tensor, index: int, tokens: Tensor | None) -> Tensor:
        """See `DraftingModel.guess`: the sampler head's, alike for every draft."""
        return rank(self.base.head, self.sample(previous, states), tokens)


def tiles(batch: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Sequences and rows of them in turns, at most `ROWS_AT_ONCE` rows; those of a sequence in order."""
    together, most = max(ROWS_AT_ONCE // rows, 1), min(ROWS_AT_ONCE, rows)
    for sequence in range(0, batch, together):
        for row in range(0, rows, most):
            yield slice(sequence, min(sequence + together, batch)), slice(row, min(row + most, rows))


def _shape(linear: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear or of the one that PEFT put something around."""
    inner: Any = linear_in(linear)
    # Quantised weights are packed: their own shape says little.
    return (inner.in_features, inner.out_features) if isinstance(inner, nn.Linear) else (inner.nx, inner.nf)
