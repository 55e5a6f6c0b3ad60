"""What torch.compile makes of a function of one layer, called directly.

A call through torch.compile checks what the code was compiled for, a hundred guards or so; with thirty short calls a
step that takes longer than compiling saves. Here the case is looked up by whoever calls, and the compiled code gets its
inputs itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

OPTIONS = {"cpp.threads": 1, "size_asserts": False, "alignment_asserts": False}
"""A step has few rows: starting threads for a kernel takes longer than it runs."""
SETTLED = {"automatic_dynamic_shapes": False, "specialize_float": True}
"""Nothing else becomes an input because another model, compiled earlier, has another size or another epsilon there."""
ROW_DIMS = (0, 1)
"""Of sequences and rows, in every tensor that a layer is called with: of any size, but 1 is a case of its own."""


def lower(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Sequence[Any]]:
    """What was traced in C++, or in Triton on a GPU. torch keeps it on disk, in `TORCHINDUCTOR_CACHE_DIR`."""
    inductor: Any = torch._dynamo.lookup_backend("inductor")
    return inductor(graph, inputs, config_patches=OPTIONS)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class CompiledCode:
    """A case: compiled code and how to call it."""

    run: Callable[..., Sequence[Any]]
    inputs: Callable[[dict[str, Any]], list[Any]]
    """From the function's local names."""
    more: tuple[Any, ...] | None
    """What a layer that gives a tuple gives after its states; None: the states alone."""

    def __call__(self, layer: nn.Module, args: Sequence[Any], named: dict[str, Any]) -> Any:
        """What the layer gives."""
        states = self.run(*self.inputs({"layer": layer, "args": args, "named": named}))[0]
        return states if self.more is None else (states, *self.more)


def forward(layer: nn.Module, *args: Any, **named: Any) -> Any:
    """What the class of `layer` says."""
    return type(layer).forward(layer, *args, **named)


class Compiler:
    """Compiles `forward` of one layer."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        # torch keeps what it compiled with a function's code, and allows few cases: this layer gets its own.
        own = FunctionType(forward.__code__.replace(), globals())
        self._trace = torch.compile(own, fullgraph=True, backend=self._keep)
        self._kept: tuple[Callable[..., Sequence[Any]], list[str]] | None = None

    def compiled(self, args: Sequence[Any], named: dict[str, Any]) -> tuple[CompiledCode, Any]:
        """Code for calls like this one, and what this one gives.

        Raises what torch raises, and NotImplementedError for code that does not serve every number of rows.
        """
        for tensor in tensors_in((*args, *named.values())):
            for dim in ROW_DIMS:
                if dim < tensor.dim() and tensor.shape[dim] > 1:
                    torch._dynamo.mark_dynamic(tensor, dim)
        with torch._dynamo.config.patch(SETTLED):
            output = self._trace(self.layer, *args, **named)
        assert self._kept is not None, "each case is compiled once"
        (run, names), self._kept = self._kept, None
        states, *more = output if isinstance(output, tuple) else (output,)
        if not isinstance(states, Tensor) or tensors_in(more):
            raise NotImplementedError("a layer gives more than its states")
        # torch names inputs by Python expressions of the function's local names, as in the guards that it would check.
        inputs = eval(f"lambda L: [{', '.join(names)}]")
        return CompiledCode(run, inputs, tuple(more) if isinstance(output, tuple) else None), output

    def _keep(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Sequence[Any]]:
        run = lower(graph, inputs)
        placeholders = [node.meta for node in graph.graph.nodes if node.op == "placeholder"]
        check_sizes([meta["example_value"] for meta in placeholders])
        sources = [meta["grapharg"].source.name for meta in placeholders]
        self._kept = run, [name() if callable(name) else name for name in sources]
        return run


def check_sizes(inputs: Sequence[Any]) -> None:
    """Raise NotImplementedError unless sizes of traced `inputs` are fixed, or any where they count sequences or rows.

    What they were guarded by is known once all was compiled.
    """
    dims: dict[Any, set[int]] = {}
    conditions: list[Any] = []
    for tensor in tensors_in(inputs):
        for dim, size in enumerate(tensor.shape):
            if isinstance(size, torch.SymInt):
                dims.setdefault(size.node.expr, set()).add(dim)
                conditions = [guard.expr for guard in size.node.shape_env.guards]
    held = [one for one in conditions if not (one.is_Equality and one.lhs.is_Symbol and one.rhs.is_Symbol)]
    if held or any(len(some) > 1 or not some <= set(ROW_DIMS) for some in dims.values()):
        raise NotImplementedError(f"what was compiled holds only for some numbers of rows: {held or dims}")


def tensors_in(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among `values`, and in tuples among them."""
    flat = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
    return [one for one in flat if isinstance(one, Tensor)]
