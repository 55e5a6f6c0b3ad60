"""Operators through which a compiled layer calls what is not compiled: the running layer's linears, and attention.

torch.compile sees an operator that takes the place of a module. Which layer's module that is, where its keys and values
lie and what its rows see, is looked up when the operator runs, so no layer, length or number of slots becomes part of
the compiled code. Linears keep what is on them: packed weights, LoRA, quantisation, hooks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import local
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache

from foresay.models.base import slot_attention
from foresay.models.base.cache import SlotLayer
from foresay.models.base.packed_linears import running_group

ATTENTION = "foresay_compiled"
"""What transformers knows the attention of compiled layers as."""


class OwnRows:
    """Stands for the cache in a compiled layer. `attend` writes to the slots, whatever the layer's index."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **named: Any) -> tuple[Tensor, Tensor]:
        """The call's rows as they are."""
        return key_states, value_states


OWN_ROWS = OwnRows()


@dataclass(slots=True)
class LayerCall:
    """A call of one layer."""

    modules: tuple[nn.Module, ...]
    """The layer's, in the order of `layer.modules()`."""
    slots: SlotLayer
    mask: Tensor | None = None
    """As `slot_attention.attend` takes it."""

    def hide(self, value: Any) -> Any:
        """An argument of the layer as the compiled code sees it: neither the cache nor the mask, whose sizes grow."""
        if isinstance(value, Cache):
            return OWN_ROWS
        if isinstance(value, Tensor) and value.dtype == torch.bool and value.dim() == 4:
            self.mask = value
            return None
        return value


class _Running(local):
    """The layer that runs in this thread."""

    call: LayerCall


RUNNING = _Running()


class Shared:
    """Linears of a layer that read the same input, in the order of their calls: one call of an operator for all."""

    def __init__(self, places: Sequence[int], widths: Sequence[int]) -> None:
        self.places, self.widths = list(places), list(widths)
        self.waiting: list[Tensor] = []
        """Outputs that were not taken yet."""


class LinearsInPlace(nn.Module):
    """Stands in a compiled layer for the linears at one place of all the layers."""

    def __init__(self, shared: Shared, first: bool) -> None:
        super().__init__()
        self.shared, self.first = shared, first

    def forward(self, states: Tensor) -> Tensor:
        """(..., inputs) -> (..., width)."""
        shared = self.shared
        if self.first:
            whole = torch.ops.foresay.linears.default(states, shared.places, sum(shared.widths))
            shared.waiting = list(whole.split(shared.widths, dim=-1))
        return shared.waiting.pop(0)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """As `slot_attention.attend`, once the call's rows `key` and `value` (B, H, T, D) are in their slots."""
    beyond = [name for name in slot_attention.BEYOND if more.get(name) is not None]
    if beyond:
        raise NotImplementedError(f"{type(module).__name__} asks for {beyond[0]}")
    return torch.ops.foresay.attend.default(query, key, value, module.place, scaling), None


AttentionInterface.register(ATTENTION, attend)


def _linears(states: Tensor, places: Sequence[int], width: int) -> Tensor:
    modules = [RUNNING.call.modules[place] for place in places]
    packed = running_group(modules)
    if packed is not None and list(packed.linears) == modules and not any(map(_hooked, modules)):
        return packed.outputs(states)
    outputs = [module(states) for module in modules]
    return torch.cat(outputs, dim=-1) if outputs[1:] else outputs[0].contiguous()


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _attend(query: Tensor, key: Tensor, value: Tensor, place: int, scaling: float | None) -> Tensor:
    call = RUNNING.call
    keys, values = call.slots.update(key, value)
    return slot_attention.attend(call.modules[place], query, keys, values, call.mask, scaling)[0].contiguous()


def _like_linears(states: Tensor, places: Sequence[int], width: int) -> Tensor:
    return states.new_empty(*states.shape[:-1], width)


def _like_attend(query: Tensor, key: Tensor, value: Tensor, place: int, scaling: float | None) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])


_LIBRARY = torch.library.Library("foresay", "DEF")  # type: ignore[no-untyped-call]
for _declared, _runs, _like in (
    ("linears(Tensor states, int[] places, int width) -> Tensor", _linears, _like_linears),
    ("attend(Tensor query, Tensor key, Tensor value, int place, float? scaling) -> Tensor", _attend, _like_attend),
):
    _name = _declared.partition("(")[0]
    _LIBRARY.define(_declared)  # type: ignore[no-untyped-call]
    _LIBRARY.impl(_name, _runs, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"foresay::{_name}", _like, lib=_LIBRARY)
