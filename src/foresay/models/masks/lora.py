"""Gated LoRA: `y_t = W x_t + I(t) * scale * up(down(x_t))` (paper A, section 3.1)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from foresay.models.base.packed_linears import PackedGroup, running_group
from foresay.models.masks.gate import Gate


class GatedLora(nn.Module):
    """The low-rank pair beside one linear of the base; `LoraGroup` attaches it.

    `down` is (rank, inputs), `up` is (outputs, rank) and starts at zero, so that an untrained adapter is silent.
    Both start as NaN until `reset` or a checkpoint fills them: a weight nobody loaded shows.
    """

    def __init__(self, name: str, inputs: int, outputs: int, rank: int, scale: float) -> None:
        super().__init__()
        self.name, self.scale = name, scale
        self.down = nn.Parameter(torch.full((rank, inputs), torch.nan))
        self.up = nn.Parameter(torch.full((outputs, rank), torch.nan))

    def reset(self, generator: torch.Generator) -> None:
        """Draw `down` as PEFT does (Kaiming uniform), zero `up`."""
        with torch.no_grad():
            bound = self.down.shape[1] ** -0.5
            self.down.copy_((torch.rand(self.down.shape, generator=generator) * 2 - 1) * bound)
            self.up.zero_()

    def approximate(self, other: "GatedLora") -> None:
        """Become the nearest pair of this rank to `other`'s product: its largest singular parts (Eckart-Young)."""
        with torch.no_grad():
            outer, left = torch.linalg.qr(other.up.double() * other.scale)
            inner, right = torch.linalg.qr(other.down.double().t())
            u, s, v = torch.linalg.svd(left @ right.t(), full_matrices=False)
            kept, root = min(len(self.down), len(s)), s.sqrt()
            self.up.zero_()[:, :kept].copy_((outer @ u * root)[:, :kept] / self.scale)
            self.down.zero_()[:kept].copy_((inner @ v.t() * root).t()[:kept])

    def forward(self, states: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs): what is added to the linear's output, computed in the pair's own dtype."""
        return functional.linear(self.narrowed(states), self.up).mul(self.scale).to(states.dtype)

    def narrowed(self, states: Tensor) -> Tensor:
        """(..., inputs) -> (..., rank): the first product."""
        return functional.linear(states.to(self.down.dtype), self.down)

    def widen(self, narrow: Tensor, outputs: Tensor) -> Tensor:
        """`outputs` (B, T, outputs) plus the second product, of `narrow` (B, T, rank): a new tensor, for autograd."""
        if outputs.dtype != self.up.dtype:
            return outputs + functional.linear(narrow * self.scale, self.up).to(outputs.dtype)
        flat = torch.addmm(outputs.flatten(0, 1), narrow.flatten(0, 1), self.up.t(), alpha=self.scale)
        return flat.view_as(outputs)


class LoraGroup:
    """The pairs of linears that read the same input, in the order of their calls: their first products are one.

    They are attached by forward hooks, or to the product that their linears are while these run packed, so the base's
    modules stay untouched.
    """

    def __init__(self, pairs: Sequence[GatedLora], gate: Gate) -> None:
        self.pairs, self.gate = pairs, gate
        self._down = self._stacked()
        # Views, for a step asks for them once a layer: attributes of modules and transposing take longer than they.
        self._down_t, self._ups_t = self._down.t(), [pair.up.data.t() for pair in pairs]
        self._inputs: Tensor | None = None
        self._narrow: Sequence[Tensor] = ()
        self._linears: list[nn.Module] = []
        self._packed: PackedGroup | None = None
        self._places: list[slice] = []

    def attach(self, linears: Mapping[str, nn.Module]) -> Sequence[RemovableHandle | PackedGroup]:
        """Add each pair's product to the mask rows of its linear's output while the gate stands open.

        What is given removes it again.
        """
        self._linears = [linears[pair.name] for pair in self.pairs]
        self._packed = packed = running_group(self._linears)
        if packed is None:
            return [linear.register_forward_hook(self._hook(index)) for index, linear in enumerate(self._linears)]
        self._places = packed.places(self._linears)
        packed.addition = self._add
        return [packed]

    @property
    def current(self) -> bool:
        """False after pairs were moved or converted: the group is to be made anew."""
        return self._as_made(len(self.pairs))

    @property
    def fits(self) -> bool:
        """False after all pairs were moved or converted, or linears packed or unpacked, while the group is attached.

        A step asks for it, so one pair stands for all.
        """
        return self._as_made(1) and running_group(self._linears) is self._packed

    def _as_made(self, pairs: int) -> bool:
        """Whether the weights of so many pairs, from the first, are where they were."""
        parts = self._down.chunk(len(self.pairs)) if pairs > 1 else (self._down,)
        return all(
            (part.data_ptr(), part.dtype, up.data_ptr()) == (pair.down.data_ptr(), pair.down.dtype, pair.up.data_ptr())
            for pair, part, up in zip(self.pairs[:pairs], parts, self._ups_t)
        )

    def _stacked(self) -> Tensor:
        """All `down` (pairs * rank, inputs) as one tensor, of which each pair's is made a part: never out of date."""
        downs = [pair.down.data for pair in self.pairs]
        first, size = downs[0], downs[0].nbytes
        if all(down.data_ptr() == first.data_ptr() + index * size for index, down in enumerate(downs)):
            return first.as_strided((len(downs) * len(first), first.shape[1]), first.stride())
        whole = torch.cat(downs)
        for pair, part in zip(self.pairs, torch.split(whole, len(first))):
            pair.down.data = part
        return whole

    def _hook(self, index: int) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
        pair, gate = self.pairs[index], self.gate

        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not gate.is_open:
                return None
            if not torch.is_grad_enabled():
                # Without autograd the linear's output is ours alone: adding in place spares a copy of the real rows.
                _widen(gate.masks(output, pair.name), self._narrowed(index, args[0]), self._ups_t[index], pair.scale)
                return None
            masks, outputs = (gate.by_row(states, pair.name) for states in (args[0], output))
            widened = pair.widen(pair.narrowed(masks[:, gate.real :]), outputs[:, gate.real :])
            joined = torch.cat((outputs[:, : gate.real], widened), dim=1) if gate.real else widened
            return joined.view_as(output)

        return add

    def _add(self, inputs: Tensor, outputs: Tensor) -> None:
        """All products of the group at once, where its linears are one product."""
        if not self.gate.is_open:
            return
        name, scale = self.pairs[0].name, self.pairs[0].scale
        narrow = self.gate.masks(inputs, name).to(self._down.dtype) @ self._down_t
        widened = self.gate.masks(outputs, name)
        for part, up, place in zip(narrow.chunk(len(self.pairs), dim=-1), self._ups_t, self._places):
            _widen(widened[..., place], part, up, scale)

    def _narrowed(self, index: int, inputs: Tensor) -> Tensor:
        """First product of the pair at `index`; the first one that is asked computes those of the others too."""
        if self._inputs is not inputs:
            pair = self.pairs[index]
            masks = self.gate.masks(inputs, pair.name)
            narrow = masks.to(self._down.dtype) @ self._down_t
            if len(self.pairs) == 1:
                return narrow
            self._inputs, self._narrow = inputs, narrow.chunk(len(self.pairs), dim=-1)
        narrow = self._narrow[index]
        if index == len(self.pairs) - 1:
            self._inputs, self._narrow = None, ()  # pairs stand in the order of their calls: this was the last
        return narrow


def _widen(outputs: Tensor, narrow: Tensor, up_t: Tensor, scale: float) -> None:
    """Add the second product to `outputs`, in place and in as few kernels as there are."""
    if outputs.dim() == 2 and outputs.dtype == up_t.dtype:
        outputs.addmm_(narrow, up_t, alpha=scale)
    else:
        outputs.add_(narrow @ up_t, alpha=scale)
