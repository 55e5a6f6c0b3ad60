"""Decoder layers beside the base's own: how they are built, called with what the base's own were called with, and
what the base does to states after its last layer. Foreign names, beside those of `base/model.py`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

from foresay.foundation.errors import UnsupportedBase
from foresay.models.base.model import Base
from foresay.models.weights import nan_weights


@dataclass(frozen=True, slots=True)
class Passed:
    """States on their way into a module of the base, and what else it was called with."""

    made: Tensor
    """(B, T, D), with the graph that made them."""
    leaf: Tensor
    """The same, as the module got them: cut off from that graph where it was asked for."""
    rest: tuple[Any, ...]
    named: dict[str, Any]

    def again(self, layer: nn.Module, states: Tensor, cache: Cache | None = None) -> Tensor:
        """Call `layer` on `states` (B, T, D) as the module was called, with a cache of its own."""

        def own(value: Any) -> Any:
            return cache if isinstance(value, Cache) else value

        output = layer(states, *map(own, self.rest), **{name: own(value) for name, value in self.named.items()})
        return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]


class Tap:
    """Reads what goes into some modules of the base, while asked to."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._passed: list[Passed] | None = None
        self._cut = False
        for module in modules:
            module.register_forward_pre_hook(self._read, with_kwargs=True)

    @contextmanager
    def reading(self, cut: bool = False) -> Iterator[list[Passed]]:
        """What goes by while the block runs, in order; `cut` lets the graph end at each module."""
        passed: list[Passed] = []
        self._passed, self._cut = passed, cut
        try:
            yield passed
        finally:
            self._passed = None

    def _read(self, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if self._passed is None:
            return None
        states, *rest = args
        leaf = states.detach().requires_grad_() if self._cut else states
        self._passed.append(Passed(states, leaf, tuple(rest), named))
        return ((leaf, *rest), named) if self._cut else None


def new_layers(base: Base, count: int) -> nn.ModuleList:
    """`count` decoder layers of the class of the base's last one, built from its config, their weights NaN.

    Each believes to be the last layer: there may be no settings for one after it. Raises UnsupportedBase.
    """
    last = base.decoder_layers()[-1]
    kind, shapes = type(last), {name: tensor.shape for name, tensor in last.state_dict().items()}
    try:
        layers = nn.ModuleList(kind(base.config, base.layers - 1) for _ in range(count))
        built = [{name: tensor.shape for name, tensor in layer.state_dict().items()} for layer in layers]
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise UnsupportedBase(
            f"{kind.__name__} cannot be built from the base's config ({str(error).splitlines()[0]}), as heads are to "
            "be; give a base with decoder layers as transformers' Llama has them, or --variant linear"
        ) from error
    if any(one != shapes for one in built):
        raise UnsupportedBase(
            f"{kind.__name__} built from the config has other weights than the base's last layer; give a base that is "
            "neither quantised nor changed after loading, or --variant linear"
        )
    nan_weights(layers)
    return layers.requires_grad_(True)


def draw_weights(base: Base, modules: nn.Module, seed: int) -> None:
    """Draw the weights of `modules` as transformers would draw the base's. Raises UnsupportedBase."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in modules.modules():
            base.model._init_weights(module)
    if any(parameter.isnan().any() for parameter in modules.parameters()):
        raise UnsupportedBase(f"{type(base.model).__name__} does not say how all weights of its layers begin")


@torch.no_grad()
def tail_of(base: Base) -> tuple[nn.Module, ...]:
    """The modules that the base's trunk sends states through after its last layer: the final norm, and the like.

    Raises UnsupportedBase where there are none to be seen.
    """
    decoder, last = base.model.get_decoder(), base.decoder_layers()[-1]
    called: list[nn.Module] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, args: called.append(module))
        for module in (*decoder.children(), last)
    ]
    try:
        base.read(torch.zeros(1, 2, dtype=torch.int64, device=base.device))
    finally:
        for hook in hooks:
            hook.remove()
    after = tuple(called[called.index(last) + 1 :])
    if not after or len(set(map(id, base.decoder_layers()))) < base.layers:
        found = "no final norm after its layers" if not after else "one decoder layer in several places"
        raise UnsupportedBase(
            f"{type(base.model).__name__} has {found}, so heads cannot take a layer's place; give a decoder-only "
            "attention model"
        )
    return after
