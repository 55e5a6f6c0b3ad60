"""What decoding asks of a model of either family: one forward a step, and states to draft from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeGuard, cast

import torch
from torch import Tensor, nn

from foresay.foundation.errors import ConfigError, UnsupportedBase, in_words
from foresay.models.base import slot_attention
from foresay.models.base.cache import SlotCache
from foresay.models.base.compiling import CURE, CompiledLayers
from foresay.models.base.cuda_graphs import Recorder, recorder_for
from foresay.models.base.model import Base, Rows
from foresay.models.base.packing import Packing
from foresay.models.base.shared_inputs import Group
from foresay.models.config import Family
from foresay.models.layout.call import Call
from foresay.models.layout.layout import Layout

PROBE_ROWS = 6
MISFITS = (TypeError, ValueError, RuntimeError, NotImplementedError, IndexError, AttributeError)
"""What a base raises that is driven in a way it does not know."""
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
    what decoding keeps from one call to the next. `compiles`: decoder layers run compiled in steps.
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
        self.compiles = False
        self._layers: CompiledLayers | None = None
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
        used = call.slots_shown or call.used
        # One row of one sequence sees every slot in use: no mask says the same, and attention is faster without.
        alone = len(ids) == 1 and layout.rows == 1 and self.base.sees_all and not call.slots_shown
        # Slots in front of every window are not handed to attention, where that may be and the shape is free.
        cut = self.base.attends_in_place and not call.slots_shown

        def draw(window: int | None) -> Tensor:
            return call.visible(used, window)[..., call.first_seen(window) if cut else 0 :]

        visible = None if alone else self.base.attention_masks(draw)
        cache.place(call.slots(), used)
        (self.attach_hooks if layout.masks else self.detach_hooks)()
        guessed = bool(self.shortlist) and 0 < len(ids) * layout.masks <= GUESSED_AT_ONCE
        kept = torch.arange(layout.real - keep, layout.rows if guessed else layout.real, device=device)
        placed = Placed(ids, layout.draw(device).mask_indices, call.positions(), visible, kept)
        with (
            self.base.attending(slot_attention.NAME),
            slot_attention.FOLDED.kept(),
            self._running(cache, len(ids) * layout.rows),
        ):
            logits, states = self._step(placed, cache)
        return Rows(logits[:, :keep], states, logits[:, keep:] if guessed else None)

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """A decoding step, all of it: within the block linears run packed, where that is wanted."""
        with self.base.turn, self.packing.run():
            yield

    def _running(self, cache: SlotCache, rows: int) -> AbstractContextManager[None]:
        """How the layers of a call with so many rows run: compiled, where that is wanted and it is no prompt."""
        layers = self._layers if self.compiles and cache.begun else None
        return layers.run(cache) if layers is not None and layers.serves(rows) else nullcontext()

    def attach_hooks(self) -> None:
        """Attach to the base what drafting needs there; nothing by default."""

    def detach_hooks(self) -> None:
        """Remove from the base what drafting attached there; nothing by default."""

    @abstractmethod
    def _step(self, placed: Placed, cache: SlotCache) -> tuple[Tensor, Tensor]:
        """Logits and states of rows whose slots are known."""

    def compile_steps(self, wanted: bool = True) -> None:
        """Run the base's decoder layers compiled in decoding steps, or no longer; prompts stay as they are.

        They are compiled when this is first asked for, and tried. Raises ConfigError where a CPU has no C++ compiler,
        and for layers that cannot be compiled, with the reason.
        """
        if wanted and self._layers is None:
            self._layers = self._tried(CompiledLayers(self.base, self.groups))
        elif wanted and self._layers is not None:
            self._layers.check()
        self.compiles = wanted

    @torch.no_grad()
    def _tried(self, layers: CompiledLayers) -> CompiledLayers:
        """`layers`, after each was compared with the base's own, and run with one row and with several."""
        cache = self.cache(2 * PROBE_ROWS, 0)
        ids = torch.arange(1, PROBE_ROWS + 1, device=self.base.device)[None] % self.base.vocabulary

        def see(rows: int, begun: int) -> None:
            self.see(ids[:, :rows], Call(Layout.quadratic(rows, 0), ids.new_full((1,), begun)), cache, rows)

        failed = f"compiled steps were asked for and the layers of {type(self.model).__name__} cannot be compiled"
        with self.decoding(), in_words(ConfigError, failed, CURE, *MISFITS):
            see(PROBE_ROWS, 0)
            with layers.comparing(cache):
                see(2, PROBE_ROWS)
            for rows in (1, 2):
                with layers.run(cache):
                    see(rows, PROBE_ROWS)
        return layers

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
        except MISFITS as error:
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
