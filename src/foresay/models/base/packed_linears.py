"""Linears on weights that oneDNN packed once, for decoding on a CPU.

`F.linear` reads and repacks a weight anew in every call, which a handful of rows pays for two to four times over. Here
the weights are packed once, those of linears with the same input (q, k and v; gate and up) as one matrix, and a packed
weight takes the place of the plain one. The base's classes and module tree stay as they are: a linear's own `forward`
is covered by an attribute of that one module, and the covers come off, and the plain weights come back to the bit, as
soon as anything but a decoding step calls a linear or reads a `state_dict`.

The products are `torch.ops.mkldnn._linear_pointwise` on `_reorder_linear_weight`: what torch's own inductor emits when
it freezes weights. They differ from `F.linear` in the last bits, so plain decoding runs on them as well.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from foresay.foundation.machine import multiplies_bfloat16
from foresay.models.base.shared_inputs import Group

ROWS = 16
"""Rows that oneDNN is told to lay a weight out for. A layout for one row is slow for several, this one is good for 1
to 256 (benchmarks/results/packed_products.json)."""


def can_pack(linear: nn.Module) -> bool:
    """Whether `linear` can be packed: one that is plain, on the CPU, in a dtype that oneDNN multiplies in hardware."""
    if type(linear).forward not in (nn.Linear.forward, Conv1D.forward) or "forward" in vars(linear):
        return False  # Falcon's, bitsandbytes' and such multiply in their own way
    weight = linear.weight
    assert isinstance(weight, Tensor)
    known = weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and multiplies_bfloat16(weight.device))
    return known and weight.device.type == "cpu" and type(weight.data) is Tensor and packs_here()


def packs_here() -> bool:
    """Whether this torch has oneDNN and its packed linear (x86 and Arm builds for Linux and Windows have)."""
    return torch._C._has_mkldnn and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def pack(weight: Tensor, rows: int = ROWS) -> Tensor:
    """A copy of `weight` (outputs, inputs) in the layout that oneDNN takes for so many rows; shape and dtype stay."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return packed


def product(states: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """(..., inputs) times a packed weight (outputs, inputs): (..., outputs)."""
    output: Tensor = torch.ops.mkldnn._linear_pointwise.default(states, packed, bias, "none", [], "")
    return output


@dataclass(eq=False)
class PackedGroup:
    """Linears that read the same input, as one product."""

    linears: Sequence[nn.Module]
    packed: Tensor
    """(all outputs, inputs), in oneDNN's layout."""
    bias: Tensor | None
    sizes: list[int]
    """Outputs of each linear."""
    inputs: Tensor | None = None
    """What the outputs that wait below were computed from."""
    waiting: list[Tensor | None] = field(default_factory=list)
    """One for each linear; None where it was taken."""
    addition: Callable[[Tensor, Tensor], None] | None = None
    """Called with input (..., inputs) and output (..., all outputs) of the product, to which it may add in place."""

    @classmethod
    def of(cls, linears: Sequence[nn.Module]) -> "PackedGroup":
        """Pack a copy of the weights of `linears`."""
        weights = [plain_weight(linear) for linear in linears]
        sizes = [len(weight) for weight in weights]
        packed = pack(torch.cat(weights) if weights[1:] else weights[0])
        return cls(linears, packed, _joined_bias(linears, sizes), sizes)

    def output(self, index: int, states: Tensor) -> Tensor:
        """Output of the linear at `index`; the first one that is asked computes those of the others too."""
        if len(self.sizes) == 1:
            return self.outputs(states)
        if self.inputs is not states or self.waiting[index] is None:
            self.inputs = states
            self.waiting = list(torch.split(self.outputs(states), self.sizes, dim=-1))
        output, self.waiting[index] = self.waiting[index], None
        assert output is not None
        if all(waiting is None for waiting in self.waiting):
            self.forget()
        return output

    def outputs(self, states: Tensor) -> Tensor:
        """Outputs of all its linears, one after the other: (..., inputs) -> (..., all outputs)."""
        output = product(states, self.packed, self.bias)
        if self.addition is not None:
            self.addition(states, output)
        return output

    def places(self, linears: Sequence[nn.Module]) -> list[slice]:
        """Where the outputs of some of its linears lie in those of all."""
        ends = list(accumulate(self.sizes))
        found = [self.linears.index(linear) for linear in linears]
        return [slice(ends[index] - self.sizes[index], ends[index]) for index in found]

    def remove(self) -> None:
        """Nothing is added any more."""
        self.addition = None

    def forget(self) -> None:
        """Let go of what waits."""
        self.inputs, self.waiting = None, []

    def unpacked(self) -> list[Tensor]:
        """The weights as they were, to the bit, each (outputs, inputs)."""
        whole = self.packed.to_dense()
        return [part.clone() for part in torch.split(whole, self.sizes)] if self.sizes[1:] else [whole]


class PackedLinears:
    """The linears of a model, packed or as they were found.

    `groups` are linears that read the same input; only those that `can_pack` are packed. `kept` are linears whose plain
    weights something else reads as well (an embedding that is tied, a shortlist): theirs stay beside the packed copy.
    """

    def __init__(self, groups: Iterable[Group], kept: Iterable[nn.Module] = ()) -> None:
        self.groups, self.kept = list(groups), set(kept)
        self.running = False
        self._groups: list[PackedGroup] = []
        self._hooks: list[RemovableHandle] = []
        self._versions: dict[nn.Module, tuple[int, int]] = {}

    @property
    def packed(self) -> bool:
        """Whether the linears are packed now."""
        return bool(self._groups)

    @contextmanager
    def run(self) -> Iterator[None]:
        """Within the block linears run packed; outside, whoever calls one finds the module as it was."""
        self.pack()
        self.running = True
        try:
            yield
        except BaseException:
            for group in self._groups:
                group.forget()
            raise
        finally:
            self.running = False

    def pack(self) -> None:
        """Pack what is not packed, or was changed since. A weight that nothing else needs is held packed only."""
        if self.packed and all(_version(linear) == version for linear, version in self._versions.items()):
            return
        self.unpack()
        for group in self.packable():
            self._pack(group)

    def packable(self) -> list[Group]:
        """The linears that can be packed, by their groups; whoever packed some of them has to unpack first."""
        for group in self.groups:
            for linear in group:
                cover = vars(linear).get("forward")
                if isinstance(cover, Cover):
                    cover.owner.unpack()
        found = (tuple(linear for linear in group if can_pack(linear)) for group in self.groups)
        return [group for group in found if group]

    def unpack(self) -> None:
        """Leave every module as it was found; weights that were held packed only come back to the bit."""
        self._uncover()
        while self._hooks:
            self._hooks.pop().remove()

    def _uncover(self) -> None:
        """`unpack` from within a hook, which cannot be taken off while it runs."""
        for group in self._groups:
            for linear, weight in zip(group.linears, group.unpacked()):
                del linear.__dict__["forward"]
                if linear not in self.kept:
                    _restore(linear, weight)
        self._groups, self._versions = [], {}

    def _pack(self, linears: Sequence[nn.Module]) -> None:
        group = PackedGroup.of(linears)
        for index, linear in enumerate(linears):
            linear.__dict__["forward"] = Cover(self, group, index)
            hook = linear.register_state_dict_pre_hook(lambda *_: self._uncover())  # type: ignore[no-untyped-call]
            self._hooks.append(hook)
            if linear in self.kept:
                self._versions[linear] = _version(linear)
            else:
                _release(linear)
        self._groups.append(group)


@dataclass(slots=True)
class Cover:
    """What is called in place of the `forward` of a packed linear."""

    owner: PackedLinears
    group: PackedGroup
    index: int

    def __call__(self, states: Tensor) -> Tensor:  # noqa: D102
        if self.owner.running:
            return self.group.output(self.index, states)
        linear = self.group.linears[self.index]
        self.owner.unpack()
        output: Tensor = linear.forward(states)
        return output


def running_group(linears: Sequence[nn.Module]) -> PackedGroup | None:
    """The group that all of `linears` are packed in, while a decoding step runs; None: no group has all of them."""
    covers = [vars(linear).get("forward") for linear in linears]
    first = covers[0]
    if not (isinstance(first, Cover) and first.owner.running):
        return None
    return first.group if all(isinstance(one, Cover) and one.group is first.group for one in covers) else None


def plain_weight(linear: nn.Module) -> Tensor:
    """(outputs, inputs) of a plain linear or of GPT-2's Conv1D, which keeps its weight transposed."""
    weight: Any = linear.weight.data  # type: ignore[union-attr]
    return weight.t() if isinstance(linear, Conv1D) else weight  # type: ignore[no-any-return]


def _joined_bias(linears: Sequence[nn.Module], sizes: Sequence[int]) -> Tensor | None:
    """Biases one after the other, zeros where a linear has none; None where none has one."""
    biases: list[Any] = [linear.bias for linear in linears]
    if all(bias is None for bias in biases):
        return None
    weight = plain_weight(linears[0])
    return torch.cat([weight.new_zeros(size) if bias is None else bias.data for bias, size in zip(biases, sizes)])


def _release(linear: nn.Module) -> None:
    """Free the plain weight; the parameter keeps its shape and reads as NaN until `_restore`."""
    weight: Any = linear.weight
    weight.data = weight.data.new_full((), torch.nan).expand(weight.shape)


def _restore(linear: nn.Module, weight: Tensor) -> None:
    parameter: Any = linear.weight
    parameter.data = (weight.t() if isinstance(linear, Conv1D) else weight).contiguous()


def _version(linear: nn.Module) -> tuple[int, int]:
    """Changes when the plain weight does."""
    weight: Any = linear.weight
    return weight.data_ptr(), weight._version
