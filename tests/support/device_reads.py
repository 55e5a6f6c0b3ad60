"""Counts what makes the host wait for the device: looks at a tensor's values, and lists that become tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from foresay.decoding.session import Session
from tests.support.tape import waits

LOOKS = {Tensor.tolist, Tensor.numpy, Tensor.__array__}
"""Calls that dispatch no operator on a CPU."""


@dataclass
class Counted:
    """Names of the calls, in order."""

    reads: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)
    """Tensors made from Python's numbers: on CUDA each is a copy from the host."""


class _Calls(TorchFunctionMode):
    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in LOOKS:
            self.counted.reads.append(func.__name__)
        if func in {torch.tensor, torch.as_tensor, Tensor.new_tensor}:
            self.counted.uploads.append(func.__name__)
        return func(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, counted: Counted) -> None:
        super().__init__()
        self.counted = counted

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if waits(func, args):
            self.counted.reads.append(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_reads() -> Iterator[Counted]:
    """What is counted while the block runs."""
    counted = Counted()
    with _Operators(counted), _Calls(counted):
        yield counted


def check_one_read(session: Session, uploads: int) -> None:
    """Step to the end: each step reads the device once, and sends at most so many tensors, two more where one ends."""
    steps = 0
    while session.live:
        live = len(session.live)
        with counted_reads() as counted:
            session.step()
        assert counted.reads == ["tolist"], counted.reads
        # Two more say who goes on.
        assert len(counted.uploads) <= uploads + 2 * (len(session.live) < live), counted.uploads
        steps += 1
    assert steps > 5
