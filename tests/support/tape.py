"""A recorder for the CPU, as strict as a CUDA graph: what was computed is computed again, and no Python runs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foresay.models.base.cuda_graphs import CannotRecordError

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}
"""Operators whose results the host has to look at."""


def waits(operator: Any, args: tuple[Any, ...]) -> bool:
    """The host has to look at what the operator gives, or at what it was given, before it can go on."""
    name = operator._schema.name.removeprefix("aten::")
    indices = args[1] if name in {"index", "index_put_", "index_put"} else ()
    return name in WAITS or any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)


@dataclass(frozen=True)
class Line:
    """One operator call, with what it gave."""

    operator: Any
    args: tuple[Any, ...]
    named: dict[str, Any]
    made: Any

    def again(self) -> None:
        """Compute it anew into the tensors of the first time, whatever they hold now."""
        alias = [returned.alias_info for returned in self.operator._schema.returns]
        if any(info is not None and not info.is_write for info in alias):
            return  # a view: what it looks at was computed before
        made = self.operator(*self.args, **self.named)
        if not any(info is not None for info in alias):
            for kept, new in zip(tree_leaves(self.made), tree_leaves(made)):
                if isinstance(kept, Tensor):
                    kept.copy_(new)


class Tape(TorchDispatchMode):
    """Writes down every operator call below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if waits(func, args):
            raise CannotRecordError(f"{func._schema.name} waits for the device")
        made = func(*args, **(kwargs or {}))
        self.lines.append(Line(func, args, dict(kwargs or {}), made))
        return made


@dataclass
class TapeRecorder:
    """See `Recorder`; counts what it records and replays."""

    recorded: int = 0
    replayed: int = 0
    tapes: list[Tape] = field(default_factory=list)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        tape = Tape()
        with tape:
            work()
        self.recorded += 1
        self.tapes.append(tape)

        def replay() -> None:
            self.replayed += 1
            with torch.no_grad():
                for line in tape.lines:
                    line.again()

        return replay
