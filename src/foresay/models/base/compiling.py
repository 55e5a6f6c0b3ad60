"""torch.compile of the decode step: what is fixed, what may grow, and how each device likes it."""

import inspect
import os
import shutil
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from foresay.foundation.errors import ConfigError
from foresay.models.base.cache import SlotCache

SHAPES = 64
"""Shapes of one function that may be compiled: layouts times one, a fixed and any batch size."""
COMPILERS = ("g++", "clang++", "c++")


def compile_for(function: Callable[..., Any], device: torch.device, recorded: bool = False) -> Callable[..., Any]:
    """`function` with fixed shapes: frozen weights and C++ calls on a CPU, CUDA graphs on a GPU.

    `recorded`: the caller records what the function does in CUDA graphs of its own.
    """
    graphs = device.type == "cuda" and not recorded
    options = {"freezing": True, "cpp_wrapper": True} if device.type == "cpu" else {"triton.cudagraphs": graphs}
    takes_limit = "recompile_limit" in inspect.signature(torch.compile).parameters
    limit = {"recompile_limit": SHAPES} if takes_limit else {}
    compiled: Callable[..., Any] = torch.compile(  # type: ignore[call-overload]
        function, fullgraph=True, options=options, **limit
    )
    return compiled if takes_limit else _limited(compiled)


def _limited(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled` with its own limit, where torch (before 2.13) knows one for the whole process alone."""

    @wraps(compiled)
    def call(*args: Any, **named: Any) -> Any:
        with torch._dynamo.config.patch(recompile_limit=SHAPES):
            return compiled(*args, **named)

    return call


def check_compiler(device: torch.device) -> None:
    """Raise ConfigError when torch.compile would find no compiler for this device."""
    wanted = (os.environ["CXX"],) if "CXX" in os.environ else COMPILERS
    if device.type == "cpu" and not any(map(shutil.which, wanted)):
        raise ConfigError(
            f"compiled steps were asked for and there is no C++ compiler ({', '.join(wanted)}); install one, or leave "
            "out compile"
        )


def let_grow(visible: Tensor | dict[str, Tensor], cache: SlotCache) -> None:
    """Let the slots, those seen and those there are, differ from call to call: one compiled step serves all lengths.

    CUDA graphs know no such freedom: there every slot is seen, and their number is part of the shape.
    """
    masks = list(visible.values()) if isinstance(visible, dict) else [visible]
    if masks[0].device.type == "cpu":
        for mask in masks:
            torch._dynamo.mark_dynamic(mask, 3)
        for layer in cache.layers:
            for stored in (layer.keys, layer.values):
                if not hasattr(stored, "_dynamo_dynamic_indices"):
                    torch._dynamo.mark_dynamic(stored, 2)
