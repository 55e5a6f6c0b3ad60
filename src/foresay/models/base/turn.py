"""Whose turn it is on a base: threads of one process wait for one another.

A decoding step changes what the base looks its attention up by, opens the gate and packs linears, so nothing else may
run the base meanwhile, not even transformers' own `generate`.
"""

from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn


class Turn:
    """A lock that one thread holds, as often as it likes; others wait. `with turn:` around whatever runs the base."""

    def __init__(self) -> None:
        self._lock: Any = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type["Inert"], tuple[()]]:
        """A copy of a model is another base, and gets a turn of its own when it is opened."""
        return Inert, ()

    def guard(self, model: nn.Module) -> None:
        """Let every forward of `model` wait for its turn, whoever calls it."""
        model.register_forward_pre_hook(self.begin)
        model.register_forward_hook(self.end, always_call=True)

    def begin(self, module: nn.Module, inputs: Any) -> None:
        """Hook before a forward. What is compiled runs inside a step, which holds the lock."""
        if not torch.compiler.is_compiling():
            self._lock.acquire()

    def end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Hook after it."""
        if not torch.compiler.is_compiling():
            self._lock.release()


class Inert(Turn):
    """What the hooks of a copied model hold: nobody waits."""

    def begin(self, module: nn.Module, inputs: Any) -> None:
        """See `Turn.begin`."""

    def end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """See `Turn.end`."""


_TURNS: WeakKeyDictionary[nn.Module, Turn] = WeakKeyDictionary()


def turn_of(model: nn.Module) -> Turn:
    """The one turn of `model`, however many adapters are opened on it."""
    if model not in _TURNS:
        _TURNS[model] = turn = Turn()
        turn.guard(model)
    return _TURNS[model]
