"""Gated LoRA: `y_t = W x_t + I(t) * scale * up(down(x_t))` (paper A, section 3.1)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from foresay.models.masks.gate import Gate


class GatedLora(nn.Module):
    """The low-rank pair beside one linear of the base, attached by a forward hook: the base's modules stay untouched.

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
        return functional.linear(self._narrow(states), self.up).mul(self.scale).to(states.dtype)

    def attach(self, linear: nn.Module, gate: Gate) -> RemovableHandle:
        """Add this pair's product to the mask rows of `linear`'s output while `gate` stands open."""

        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not gate.is_open:
                return None
            inputs, outputs = gate.by_row(args[0], self.name), gate.by_row(output, self.name)
            masks = inputs[:, gate.real :]
            if torch.is_grad_enabled():
                joined = torch.cat((outputs[:, : gate.real], outputs[:, gate.real :] + self(masks)), dim=1)
                return joined.view_as(output)
            # Without autograd the linear's output is ours alone: adding in place spares a copy of the real rows.
            self._add(masks, outputs[:, gate.real :])
            return None

        return linear.register_forward_hook(add)

    def _narrow(self, states: Tensor) -> Tensor:
        """(..., inputs) -> (..., rank)."""
        return functional.linear(states.to(self.down.dtype), self.down)

    def _add(self, states: Tensor, outputs: Tensor) -> None:
        """Add the product of `states` (B, T, inputs) to `outputs` (B, T, outputs), in as few kernels as there are."""
        if len(states) == 1 and outputs.dtype == self.up.dtype:
            outputs[0].addmm_(self._narrow(states[0]), self.up.t(), alpha=self.scale)
        else:
            outputs.add_(functional.linear(self._narrow(states), self.up), alpha=self.scale)
