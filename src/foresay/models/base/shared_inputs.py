"""Which linears of a base read the same input: q, k and v, or gate and up. What is computed for one serves them all."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

Group = tuple[nn.Module, ...]
"""Linears that read the same input, in the order in which they are called."""


@contextmanager
def noting_inputs(linears: Sequence[nn.Module]) -> Iterator[list[Group]]:
    """Note what `linears` are called with while the block runs a forward of the base.

    The list is filled when the block ends. Linears stand together when they got the same tensor object, unchanged
    between their calls. One that was called twice, or never, stands alone.
    """
    groups: list[Group] = []
    seen: list[Tensor] = []  # keeps the inputs alive, so that no other tensor gets the id of one
    calls: dict[nn.Module, list[tuple[int, int]]] = {}

    def note(linear: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0])
        calls.setdefault(linear, []).append((id(args[0]), args[0]._version))

    hooks = [linear.register_forward_pre_hook(note) for linear in linears]
    try:
        yield groups
    finally:
        for hook in hooks:
            hook.remove()
    groups += _grouped(calls)
    groups += [(linear,) for linear in linears if linear not in calls]


def _grouped(calls: Mapping[nn.Module, Sequence[tuple[int, int]]]) -> list[Group]:
    """Linears by the input of their only call, in the order of the calls."""
    groups: dict[Any, Group] = {}
    for linear, inputs in calls.items():
        key = inputs[0] if len(inputs) == 1 else linear
        groups[key] = (*groups.get(key, ()), linear)
    return list(groups.values())
