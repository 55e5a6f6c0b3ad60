"""Decoder layers compiled once for all that are alike, and for steps of any length.

Compiled as a whole, a model is unrolled: each layer is traced and compiled for itself, and for every shape of a step.
Here a *pattern* is compiled for each kind of layer: a copy in which linears and attention are calls of the running
layer's own (`layer_operators.py`). What is left lies between them: norms, rotary positions, activations, residuals,
whose kernels take longer to start than to run. Their parameters are handed in, layer by layer.

The base stays as it is: while a step runs, the `forward` of each layer is covered by an attribute of that one module.
"""

import copy
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foresay.foundation.errors import ConfigError
from foresay.models.base.cache import SlotCache, SlotLayer
from foresay.models.base.compiled_code import CompiledCode, Compiler, forward, tensors_in
from foresay.models.base.layer_operators import ATTENTION, RUNNING, LayerCall, LinearsInPlace, Shared
from foresay.models.base.model import Base
from foresay.models.base.shared_inputs import Group
from foresay.models.base.user_lora import linear_in

COMPILERS = ("g++", "clang++", "c++")
KINDS = 4
"""Kinds of layers that are worth compiling; a base has one, or two where windows take turns with full attention."""
INDEX = "layer_idx"
"""By this layers that are alike differ. A cache is told it, and ours need not be; `Cover.compare` finds other uses."""
ROWS_ON_CPU = 64
"""Most rows of a step that runs compiled on a CPU: of more, kernels that are not compiled run on several threads."""
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
CURE = "leave out --compile (`compile=False`)"


def check_compiler(device: torch.device) -> None:
    """Raise ConfigError when torch.compile would find no compiler for this device."""
    wanted = (os.environ["CXX"],) if "CXX" in os.environ else COMPILERS
    if device.type == "cpu" and not any(map(shutil.which, wanted)):
        raise ConfigError(
            f"compiled steps were asked for and there is no C++ compiler ({', '.join(wanted)}); install one, or {CURE}"
        )


class CompiledLayers:
    """The decoder layers of a base, compiled by their kinds when they first run.

    Raises ConfigError where they cannot be, with the reason.
    """

    def __init__(self, base: Base, groups: Sequence[Group]) -> None:
        """`groups`: the linears that share an input (`shared_inputs.py`)."""
        self._base = base
        check_compiler(base.device)
        self.check()
        layers = list(base.decoder_layers())
        patterns: dict[Any, Pattern] = {}
        self._covers = []
        for layer in layers:
            kind = kind_of(layer)
            if kind not in patterns:
                patterns[kind] = Pattern(layer, groups)
            self._covers.append(Cover(layer, patterns[kind]))
        if len(patterns) > KINDS:
            raise ConfigError(
                f"compiled steps were asked for and the {len(layers)} layers of {type(base.model).__name__} are of "
                f"{len(patterns)} kinds, which would take long; {CURE}"
            )

    def check(self) -> None:
        """Raise ConfigError for what a pattern cannot stand for, a hook that came later too."""
        kind = type(self._base.model).__name__
        parts = [part for layer in self._base.decoder_layers() for part in layer.named_modules()]
        hooked = [name or "a layer" for name, module in parts if _is_hooked(module)]
        reasons = {
            f"{kind} with attention {self._base.attention!r} takes no other": not self._base.attends_in_place,
            f"{kind} keeps latents, not keys and values": not self._base.reads_kept_rows,
            f"something stands around {', '.join(hooked[:1])} of {kind}": bool(hooked),
        }
        for reason, found in reasons.items():
            if found:
                raise ConfigError(
                    f"compiled steps were asked for and {reason}, so its layers cannot be compiled; {CURE}"
                )

    def serves(self, rows: int) -> bool:
        """Whether a call with so many rows, of all sequences, runs compiled."""
        return self._base.device.type != "cpu" or rows <= ROWS_ON_CPU

    @contextmanager
    def run(self, cache: SlotCache) -> Iterator[None]:
        """Within the block the layers run compiled, and write to `cache`."""
        with self._covered(cache, Cover.__call__):
            yield

    @contextmanager
    def comparing(self, cache: SlotCache) -> Iterator[None]:
        """Within the block nothing is compiled: each layer and its pattern both run, and must agree.

        Raises ConfigError where they do not.
        """
        with self._covered(cache, Cover.compare):
            yield

    @contextmanager
    def _covered(self, cache: SlotCache, call: Callable[..., Any]) -> Iterator[None]:
        for cover, slots in zip(self._covers, cache.layers):
            cover.slots = slots  # type: ignore[assignment]
            vars(cover.layer)["forward"] = partial(call, cover)
        try:
            yield
        finally:
            for cover in self._covers:
                vars(cover.layer).pop("forward", None)


class Pattern:
    """A copy of one layer that stands for all of its kind: linears and attention are those of the layer that runs."""

    def __init__(self, layer: nn.Module, groups: Sequence[Group]) -> None:
        self.parts: dict[int, nn.Module] = {}
        """Copies by their places in `layer.modules()`; linears have none."""
        self._places = {module: place for place, module in enumerate(layer.modules())}
        self._linears = self._in_place(groups)
        self.layer = self._copied(layer)
        self._compiler = Compiler(self.layer)
        self._cases: dict[Any, CompiledCode] = {}

    def code_for(self, states: Tensor) -> CompiledCode | None:
        """For calls with such states (B, T, D); None: none yet."""
        return self._cases.get(_case(states))

    def compile(self, args: Sequence[Any], named: dict[str, Any]) -> Any:
        """Compile for calls like this one, and return its output. The pattern holds the layer's tensors."""
        self._cases[_case(args[0])], output = self._compiler.compiled(args, named)
        return output

    def _in_place(self, groups: Sequence[Group]) -> dict[nn.Module, LinearsInPlace]:
        """What stands for the layer's linears; those of a group share a call."""
        found: dict[nn.Module, LinearsInPlace] = {}
        alone = [(module,) for module in self._places if linear_in(module) is not None]
        for group in (*groups, *alone):
            if all(module in self._places and module not in found for module in group):
                widths = [_width(linear_in(module)) for module in group]
                shared = Shared([self._places[module] for module in group], widths)
                found |= {module: LinearsInPlace(shared, index == 0) for index, module in enumerate(group)}
        return found

    def _copied(self, module: nn.Module) -> nn.Module:
        if module in self._linears:
            return self._linears[module]
        place = self._places[module]
        made: Any = copy.copy(module)  # tensors and settings are shared
        made._parameters, made._buffers = dict(module._parameters), dict(module._buffers)
        made._modules = {name: child and self._copied(child) for name, child in module._modules.items()}
        made.place = place
        if hasattr(getattr(made, "config", None), "_attn_implementation"):
            made.config = copy.copy(made.config)
            made.config._attn_implementation = ATTENTION
        self.parts[place] = made
        return made  # type: ignore[no-any-return]


class Cover:
    """What is called in place of the `forward` of one layer while a step runs."""

    def __init__(self, layer: nn.Module, pattern: Pattern) -> None:
        self.layer, self.pattern = layer, pattern
        self.slots: SlotLayer
        self._modules = tuple(layer.modules())
        self._own = [
            (there, here, name)
            for place, part in pattern.parts.items()
            for there, here in zip(_tensors_of(part), _tensors_of(self._modules[place]))
            for name, tensor in there.items()
            if tensor is not None
        ]
        """Where the pattern's tensors are and where this layer's."""

    def __call__(self, *args: Any, **named: Any) -> Any:
        """The compiled layer's output."""
        args, named = self._enter(args, named)
        code = self.pattern.code_for(args[0])
        if code is not None:
            return code(self.layer, args, named)
        self._lend()
        return self.pattern.compile(args, named)

    def compare(self, *args: Any, **named: Any) -> Any:
        """The layer's own output. Raises ConfigError where the pattern's is another: nothing may be compiled then."""
        own = forward(self.layer, *args, **named)
        args, named = self._enter(args, named)
        self._lend()
        pattern = forward(self.pattern.layer, *args, **named)
        if not all(map(_alike, tensors_in((own,)), tensors_in((pattern,)))):
            raise ConfigError(
                f"compiled steps were asked for and a copy of {type(self.layer).__name__} gives other states than the "
                f"layer itself; {CURE}"
            )
        return own

    def _enter(self, args: Sequence[Any], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Let operators find this layer's linears, slots and mask; the arguments without these."""
        call = RUNNING.call = LayerCall(self._modules, self.slots)
        return tuple(map(call.hide, args)), {name: call.hide(value) for name, value in named.items()}

    def _lend(self) -> None:
        """Let the pattern hold this layer's tensors. Compiled code reads them where they are."""
        for there, here, name in self._own:
            there[name] = here[name]


def _alike(own: Tensor, pattern: Tensor) -> bool:
    """Whether they differ by rounding alone: kernels add up in another order where tensors lie otherwise."""
    apart = (own - pattern).float().norm() / own.float().norm()
    return bool(apart <= TOLERANCE.get(own.dtype, 1e-2))


def _case(states: Tensor) -> tuple[Any, ...]:
    return states.shape[0] == 1, states.shape[1] == 1, states.dtype, states.device


def kind_of(layer: nn.Module) -> tuple[Any, ...]:
    """What layers that are alike have in common: modules, shapes, settings."""
    found: list[Any] = []
    for name, module in layer.named_modules():
        inner = linear_in(module)
        settings = () if inner is not None else _settings(module)
        found.append((name, type(module), None if inner is None else _width(inner), settings))
    return tuple(found)


def _settings(module: nn.Module) -> tuple[Any, ...]:
    """What a module's `forward` may depend on, its own parameters' values and the layer's index apart."""
    tensors = {**module._parameters, **module._buffers}
    shapes = [(name, None if one is None else (one.shape, one.dtype)) for name, one in sorted(tensors.items())]
    own = [
        (name, value if isinstance(value, (bool, int, float, str, torch.dtype, type(None))) else id(value))
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and name != INDEX
    ]
    return (*shapes, *own)


def _width(linear: Any) -> int:
    return int(linear.out_features if isinstance(linear, nn.Linear) else linear.nf)


def _tensors_of(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    return module._parameters, module._buffers


def _is_hooked(module: nn.Module) -> bool:
    """Whether calling it runs more than its class's own `forward`; linears may do that."""
    return linear_in(module) is None and bool(
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    )
