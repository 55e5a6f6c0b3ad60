"""The base and its adapter as one model: the two ways a call is made, and nothing about training or decoding."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from foresay.config import MTPConfig
from foresay.documents import Documents, MaskCall
from foresay.errors import UnsupportedBase
from foresay.layout import Call, Layout
from foresay.modelling.base import Base, Rows
from foresay.modelling.cache import KeptCache, SlotCache
from foresay.modelling.compiling import check_compiler, compile_for, let_grow
from foresay.modelling.gate import Gate
from foresay.modelling.lora import GatedLora
from foresay.modelling.sampler import build_sampler

F = TypeVar("F", bound=Callable[..., Any])
ROWS_AT_ONCE = 2048
"""Real rows that the base pass of training runs at once: their activations and what they see are all that it holds."""
PROBE_ROWS = 6
PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}


class Adapter(nn.Module):
    """Everything that is trained: mask embeddings, LoRA pairs, sampler head."""

    def __init__(self, base: Base, config: MTPConfig) -> None:
        super().__init__()
        embedding, width = base.embedding.weight.shape[1], base.head.weight.shape[1]
        self.masks = nn.Parameter(torch.full((config.num_masks, embedding), torch.nan))
        shapes = {name: _shape(linear) for name, linear in base.linears().adapted.items()}
        self.loras = nn.ModuleList(
            GatedLora(name, inputs, outputs, config.rank, config.scale) for name, (inputs, outputs) in shapes.items()
        )
        self.sampler = build_sampler(config.sampler, embedding, width)
        self.masks.requires_grad_(config.train_masks)

    @property
    def pairs(self) -> list[GatedLora]:
        """The LoRA pairs, one for each adapted linear."""
        return list(self.loras)  # type: ignore[arg-type]


class MaskModel(nn.Module):
    """A frozen base that can also say what comes after the next token.

    `see` runs decoding calls, `keep` and `see_masks` the two passes of training. `acceptance` is what training
    measured: the share of steps that kept the j-th draft (quadratic, held-out prompts); empty when nobody did.
    `shortlist` is how many tokens a draft is drawn from; 0: all.
    """

    def __init__(self, base: Base, config: MTPConfig) -> None:
        super().__init__()
        self.base, self.config = base, config
        self.model = base.model
        self.adapter = Adapter(base, config).to(base.device)
        self.gate = Gate()
        self.acceptance: tuple[float, ...] = ()
        self.shortlist = 0
        self._linears = base.linears().adapted
        self._hooks: list[RemovableHandle] = []
        self._compiled: dict[Any, Any] | None = None

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
            noise = torch.randn(self.adapter.masks.shape, generator=generator)
            self.adapter.masks.copy_(noise * sample.float().std().cpu())
        for lora in self.adapter.pairs:
            lora.reset(generator)
        self.adapter.sampler.reset(generator)

    def see(self, ids: Tensor, call: Call, cache: SlotCache, keep: int) -> Rows:
        """One decoding call: real rows `ids` (B, R) int64 and the layout's masks, placed by `call`.

        Logits come for the last `keep` real rows, states for all rows.
        """
        layout, device = call.layout, ids.device
        # Not a prompt, whose length is any: the first call of a cache, or one that computes it anew.
        fixed = self.compiles and cache.begun and layout.trunk <= self.config.num_masks + 1
        # One row of one sequence sees every slot in use: no mask says the same, and attention is faster without.
        alone = len(ids) == 1 and layout.rows == 1 and self.base.sees_all and not fixed
        used = cache.slots if fixed and ids.is_cuda else call.used
        sight = None if alone else self.base.masks(lambda window: call.sight(used, window))
        if fixed and sight is not None:
            let_grow(sight, cache)
        cache.place(call.slots(), used)
        self.equip(bool(layout.masks))
        kept = torch.arange(layout.real - keep, layout.real, device=device)
        placed = Placed(ids, layout.draw(device).offsets, call.positions(), sight, kept)
        return Rows(*(self.compiled(_step) if fixed else _step)(self, placed, cache))

    def compile_steps(self, wanted: bool = True) -> None:
        """Send decode steps through torch.compile, or no longer: each layout is compiled when it first runs.

        Prefill stays as it is. Weights of base and adapter are taken for constants: after training, ask anew. Raises
        ConfigError where a CPU has no C++ compiler.
        """
        if wanted:
            check_compiler(self.base.device)
            self._compiled = self._compiled if self._compiled is not None else {}
        else:
            self._compiled = None

    @property
    def compiles(self) -> bool:
        """Steps go through torch.compile."""
        return self._compiled is not None

    def compiled(self, function: F) -> F:
        """`function`, compiled where `compile_steps` asked for it."""
        if self._compiled is None:
            return function
        if function not in self._compiled:
            self._compiled[function] = compile_for(function, self.base.device)
        return cast(F, self._compiled[function])

    def equip(self, wanted: bool) -> None:
        """Hang LoRA on the base's linears, or take it off: a hook costs time even where the gate stays closed."""
        if wanted and not self._hooks:
            self._hooks = [pair.attach(self._linears[pair.name], self.gate) for pair in self.adapter.pairs]
        elif not wanted:
            while self._hooks:
                self._hooks.pop().remove()

    @torch.no_grad()
    def keep(self, ids: Tensor, documents: Documents | None = None) -> tuple[KeptCache, Tensor]:
        """The base pass of training, without gradient: `ids` (B, R) int64, padded behind, through the closed gate.

        Returns the K/V for `see_masks` and the states (B, R, D).
        """
        self.equip(False)
        base, documents = self.base, documents or Documents(torch.zeros_like(ids))
        cache, none = KeptCache(base.layers, ids.shape), ids.new_zeros(1)
        states = torch.empty(*ids.shape, base.head.weight.shape[1], dtype=base.dtype, device=ids.device)
        for sequences, rows in tiles(*ids.shape):
            own = documents.of(sequences)
            sight = base.masks(lambda window: own.sight(rows, window))  # noqa: B023
            cache.keep(sequences, rows)
            embeds = base.embedding(ids[sequences, rows])
            states[sequences, rows] = base.run(embeds, own.positions(rows), sight, cache, none).states
        return cache, states

    def see_masks(self, call: MaskCall, cache: KeptCache) -> Tensor:
        """The mask pass of training, with gradient: states (B, A * k, D) of the call's masks behind the kept rows."""
        base = self.base
        embeds = self.adapter.masks[call.offsets()].to(base.dtype).expand(len(call.anchors), -1, -1)
        cache.read(base.attends_in_place)
        self.equip(True)
        with self.gate.open(len(call.anchors), call.rows, 0):
            if base.attends_in_place:
                return base.run_masks(embeds, call, cache)
            sight = base.masks(lambda window: call.sight(cache.shape[1], window))
            return base.run(embeds, call.positions(), sight, cache, call.anchors.new_zeros(1)).states

    def sample(self, previous: Tensor, states: Tensor) -> Tensor:
        """States to unembed (..., D) by the sampler head: `previous` (...) int64 tokens before, `states` (..., D)."""
        dtype = self.adapter.masks.dtype
        embedded = self.base.embedding(previous).to(dtype)
        sampled: Tensor = self.adapter.sampler(embedded, states.to(dtype))
        return sampled.to(states.dtype)

    def shortlist_of(self, states: Tensor) -> Tensor | None:
        """(..., C) int64: the tokens that the bare head ranks first for mask states (..., D); None: all may be drawn.

        So the draws of a block, one behind the other, need not read the whole unembedding each (design, section 4).
        """
        return self.base.head(states).topk(self.shortlist).indices if self.shortlist else None

    def guess(self, previous: Tensor, states: Tensor, tokens: Tensor | None) -> Tensor:
        """Bare logits of the sampler head: `previous` (B, P) int64, `states` (B, P, D) -> (B, P, V).

        With a shortlist `tokens` (B, C), of those alone: (B, P, C).
        """
        head, sampled = self.base.head, self.sample(previous, states)
        if tokens is None:
            logits: Tensor = head(sampled)
            return logits
        logits = sampled @ head.weight[tokens].transpose(1, 2)
        return logits if head.bias is None else logits + head.bias[tokens][:, None]

    @torch.no_grad()
    def probe(self) -> None:
        """Compare rows driven our way with the base's own forward; raise UnsupportedBase when they differ."""
        name, base = type(self.model).__name__, self.base
        ids = torch.arange(1, PROBE_ROWS + 1, device=base.device)[None] % base.vocabulary
        try:
            own = self.model(input_ids=ids, use_cache=False).logits
            cache = SlotCache(base.layers, 2 * PROBE_ROWS + 2)
            layout = Layout.quadratic(PROBE_ROWS, 1)
            seen = self.see(ids, Call(layout, ids.new_zeros(1)), cache, PROBE_ROWS)
            ours = {"explicit rows": seen.logits, "unembedding": base.unembed(seen.states[:, :PROBE_ROWS])}
            # Once more behind cached rows: a linear that runs over the cache shows itself there.
            self.see(ids[:, :1], Call(Layout.linear(1, 1), ids.new_full((1,), PROBE_ROWS)), cache, 1)
        except (TypeError, ValueError, RuntimeError, NotImplementedError, IndexError, AttributeError) as error:
            raise UnsupportedBase(
                f"{name} does not take explicit rows, masks and positions ({type(error).__name__}: "
                f"{str(error).splitlines()[0] if str(error) else 'no message'}); give a decoder-only attention model"
            ) from error
        for what, logits in ours.items():
            apart = ((logits - own).float().norm() / own.float().norm()).item()
            if not apart <= PROBE_TOLERANCE.get(base.dtype, 0.1):
                raise UnsupportedBase(
                    f"{name} gives other logits through {what} than through its own forward (relative distance "
                    f"{apart:.1e}), so nothing could be verified; give a decoder-only attention model"
                )


def tiles(batch: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Sequences and rows of them in turns, at most `ROWS_AT_ONCE` rows; those of a sequence in order."""
    together, most = max(ROWS_AT_ONCE // rows, 1), min(ROWS_AT_ONCE, rows)
    for sequence in range(0, batch, together):
        for row in range(0, rows, most):
            yield slice(sequence, min(sequence + together, batch)), slice(row, min(row + most, rows))


class Placed(NamedTuple):
    """What a step runs on, cache slots apart."""

    ids: Tensor
    """(B, R) int64: real rows."""
    offsets: Tensor
    """(T - R,) int64 of the masks."""
    positions: Tensor
    """(B, T) int64."""
    sight: Any
    """Masks for the base's attention; None: everything is seen."""
    kept: Tensor
    """Rows that get logits, int64."""


def _step(model: MaskModel, placed: Placed, cache: SlotCache) -> tuple[Tensor, Tensor]:
    """Logits and states of rows whose slots are known: the part of `see` that may be compiled."""
    ids, offsets, positions, sight, kept = placed
    base = model.base
    if sight is not None:
        # Compiled, the width of the sight is a symbol that stands for every number of slots.
        cache.placement.used = (next(iter(sight.values())) if isinstance(sight, dict) else sight).shape[-1]
    embeds = base.embedding(ids)
    if not len(offsets):
        seen = base.run(embeds, positions, sight, cache, kept)
    else:
        masks = model.adapter.masks[offsets].to(embeds.dtype)
        embeds = torch.cat((embeds, masks.expand(len(ids), -1, -1)), dim=1)
        with model.gate.open(len(ids), embeds.shape[1], ids.shape[1]):
            seen = base.run(embeds, positions, sight, cache, kept)
    return seen.logits, seen.states


def _shape(linear: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear; GPT-2's Conv1D keeps its weight transposed."""
    weight: Tensor = linear.weight  # type: ignore[assignment]
    rows, columns = weight.shape
    return (columns, rows) if isinstance(linear, nn.Linear) else (rows, columns)
