"""What decoding asks of a model of either family: one forward a step, and states to draft from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeGuard, TypeVar, cast

import torch
from torch import Tensor, nn

from foresay.foundation.errors import UnsupportedBase
from foresay.models.base import slot_attention
from foresay.models.base.cache import SlotCache
from foresay.models.base.compiling import check_compiler, compile_for, let_grow
from foresay.models.base.cuda_graphs import Recorder, recorder_for
from foresay.models.base.model import Base, Rows
from foresay.models.base.packing import Packing
from foresay.models.base.shared_inputs import Group
from foresay.models.config import Family
from foresay.models.layout.call import Call
from foresay.models.layout.layout import Layout

F = TypeVar("F", bound=Callable[..., Any])
PROBE_ROWS = 6
GUESSED_AT_ONCE = 32
"""Most mask rows of a call that are unembedded together with its real rows. With more of them, reading the unembedding
once more, for the blocks that are drafted from, costs less."""
PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}


class Placed(NamedTuple):
    """What a step runs on, cache slots apart."""

    ids: Tensor
    """(B, R) int64: real rows."""
    mask_indices: Tensor
    """(T - R,) int64 of the masks."""
    positions: Tensor
    """(B, T) int64."""
    visible: Any
    """Masks for the base's attention; None: everything is seen."""
    kept: Tensor
    """Rows that get logits, int64."""


class DraftingModel(nn.Module, ABC):
    """A base that can also guess what comes after the next token.

    `acceptance` is what training measured: the share of steps that kept the j-th draft (quadratic, held-out prompts);
    empty when nobody did. `shortlist` is how many tokens a draft is drawn from; 0: all; None: nobody has decoded yet.
    `groups` are the base's adapted linears by shared inputs, as `probe` saw them. `step_graphs` and `cost_book` are
    what decoding keeps from one call to the next.
    """

    def __init__(self, base: Base, config: Family) -> None:
        super().__init__()
        self.base, self.config = base, config
        self.model = base.model
        self.acceptance: tuple[float, ...] = ()
        self.shortlist: int | None = None
        self.cost_book: Any = None
        self.packing = Packing(base)
        self.groups: list[Group] = []
        self._compiled: dict[Any, Any] | None = None
        self._recorder: Recorder | None = None
        self.recordable = False
        self.step_graphs: Any = None

    @property
    @abstractmethod
    def added(self) -> nn.Module:
        """What the model has beside its base."""

    @property
    def added_dtype(self) -> torch.dtype:
        """Dtype in which what is beside the base decodes: the base's own."""
        return self.base.dtype

    def cache(self, slots: int, masks: int, sequences: int = 0) -> SlotCache:
        """An empty cache for calls with blocks of at most `masks` masks; `sequences` as `SlotCache` takes them."""
        return SlotCache(self.base.layers, slots, sequences)

    def see(self, ids: Tensor, call: Call, cache: SlotCache, keep: int) -> Rows:
        """One decoding call: real rows `ids` (B, R) int64 and the layout's masks, placed by `call`.

        Logits come for the last `keep` real rows, states for all rows; those of masks are what `guess` takes. Where
        drafts are drawn from a shortlist and there are few masks, their logits come from the same product.
        """
        layout, device = call.layout, ids.device
        # Not a prompt, whose length is any: the first call of a cache, or one that computes it anew.
        fixed = self.compiles and cache.begun and layout.trunk <= self.config.drafts + 1
        used = call.slots_shown or (cache.bucket(call.used) if fixed and ids.is_cuda else call.used)
        # One row of one sequence sees every slot in use: no mask says the same, and attention is faster without.
        alone = len(ids) == 1 and layout.rows == 1 and self.base.sees_all and not (fixed or call.slots_shown)
        # Slots in front of every window are not handed to attention, where that may be and the shape is free.
        cut = self.base.attends_in_place and not (self.compiles or call.slots_shown)

        def draw(window: int | None) -> Tensor:
            return call.visible(used, window)[..., call.first_seen(window) if cut else 0 :]

        visible = None if alone else self.base.attention_masks(draw)
        if fixed and visible is not None:
            let_grow(visible, cache)
        cache.place(call.slots(), used)
        (self.attach_hooks if layout.masks else self.detach_hooks)()
        guessed = bool(self.shortlist) and 0 < len(ids) * layout.masks <= GUESSED_AT_ONCE
        kept = torch.arange(layout.real - keep, layout.rows if guessed else layout.real, device=device)
        placed = Placed(ids, layout.draw(device).mask_indices, call.positions(), visible, kept)
        step = type(self)._step
        with self.base.attending(slot_attention.NAME), slot_attention.FOLDED.kept():
            logits, states = (self.compiled(step) if fixed else step)(self, placed, cache)
        return Rows(logits[:, :keep], states, logits[:, keep:] if guessed else None)

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """A decoding step, all of it: within the block linears run packed, where that is wanted."""
        with self.base.turn, self.packing.run(self.compiles):
            yield

    def attach_hooks(self) -> None:
        """Attach to the base what drafting needs there; nothing by default."""

    def detach_hooks(self) -> None:
        """Remove from the base what drafting attached there; nothing by default."""

    @abstractmethod
    def _step(self, placed: Placed, cache: SlotCache) -> tuple[Tensor, Tensor]:
        """Logits and states of rows whose slots are known: the part of `see` that may be compiled."""

    def _let_see(self, placed: Placed, cache: SlotCache) -> None:
        """Tell the cache how many slots the attention mask has, where that is compiled to a symbol for any number."""
        visible = placed.visible
        if visible is not None and self.compiles:
            cache.placement.used = (next(iter(visible.values())) if isinstance(visible, dict) else visible).shape[-1]

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

    def record_steps(self, wanted: bool = True) -> None:
        """Record decode steps as CUDA graphs when they first run, and replay them, or no longer; elsewhere nothing."""
        if wanted and self._recorder is None:
            self._recorder = recorder_for(self.base.device)
            self.recordable = self._recorder is not None
        elif not wanted:
            self._recorder, self.step_graphs = None, None

    @property
    def recorder(self) -> Recorder | None:
        """What records steps; None where they are not, or turned out not to be recordable."""
        return self._recorder if self.recordable else None

    @property
    def compiles(self) -> bool:
        """Steps go through torch.compile."""
        return self._compiled is not None

    def compiled(self, function: F) -> F:
        """`function`, compiled where `compile_steps` asked for it."""
        if self._compiled is None:
            return function
        if function not in self._compiled:
            self._compiled[function] = compile_for(function, self.base.device, recorded=self.recorder is not None)
        return cast(F, self._compiled[function])

    def shortlist_of(self, states: Tensor, guesses: Tensor | None = None) -> Tensor | None:
        """(B, K, C) int64: the tokens that the bare head ranks first for mask states (B, K, D); None: all may be drawn.

        So the unembedding is read once for a block, and not for each of its draws, one after the other; with `guesses`
        (B, K, V), which the call gave (`Rows.guesses`), not even that. Without them a block of one mask has one draw,
        which reads it once anyway.
        """
        if not self.shortlist or (guesses is None and states.shape[1] == 1):
            return None
        return (self._first_guesses(states) if guesses is None else guesses).topk(self.shortlist).indices

    def _first_guesses(self, states: Tensor) -> Tensor:
        """Bare logits (B, K, V) of a block by its states (B, K, D) alone, in one product."""
        logits: Tensor = self.base.head(states)
        return logits

    @abstractmethod
    def guess(self, previous: Tensor, states: Tensor, index: int, tokens: Tensor | None) -> Tensor:
        """Bare logits of draft `index`, counted from 0: (B, P, V), or (B, P, C) of a shortlist `tokens` (B, C).

        `previous` (B, P) int64 are the tokens before, `states` (B, P, D) what the block holds there.
        """

    @torch.no_grad()
    def probe(self) -> None:
        """Compare rows driven our way with the base's own forward; raise UnsupportedBase when they differ."""
        name, base, masks = type(self.model).__name__, self.base, min(self.config.drafts, 1)
        ids = torch.arange(1, PROBE_ROWS + 1, device=base.device)[None] % base.vocabulary
        try:
            own = self.model(input_ids=ids, use_cache=False).logits
            cache = self.cache(2 * PROBE_ROWS + 2, masks)
            layout = Layout.quadratic(PROBE_ROWS, masks)
            with self.packing.noting(self.added) as self.groups:
                seen = self.see(ids, Call(layout, ids.new_zeros(1)), cache, PROBE_ROWS)
            self.detach_hooks()  # attached anew, what is attached there knows the groups
            ours = {"explicit rows": seen.logits, "unembedding": base.unembed(seen.states[:, :PROBE_ROWS])}
            # Once more after cached rows: a linear that runs over the cache shows itself there.
            self.see(ids[:, :1], Call(Layout.linear(1, masks), ids.new_full((1,), PROBE_ROWS)), cache, 1)
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


def rank(head: nn.Module, states: Tensor, tokens: Tensor | None) -> Tensor:
    """Bare logits (B, P, V) of `states` (B, P, D); with a shortlist `tokens` (B, C) of those alone, (B, P, C).

    Of a shortlist only its own rows of the weight are read, where `head` is a plain linear.
    """
    if tokens is not None and _is_plain(head):
        logits = states @ nn.functional.embedding(tokens, head.weight).transpose(1, 2)
        return logits if head.bias is None else logits + head.bias[tokens][:, None]
    ranked: Tensor = head(states)
    return ranked if tokens is None else ranked.gather(2, tokens[:, None].expand(-1, states.shape[1], -1))


def _is_plain(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether the output is the product with `weight`: no quantised head, and none that PEFT put something around."""
    return (
        type(head).forward is nn.Linear.forward
        and type(getattr(head.weight, "data", None)) is Tensor
        and cast(Tensor, head.weight).is_floating_point()
    )
