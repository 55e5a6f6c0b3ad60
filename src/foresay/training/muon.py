"""Muon for processors without bfloat16, in which torch's own computes: there it takes longer than the training pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Float32Muon(torch.optim.Muon):
    """torch's Muon with its products in float32; settings and state are the same."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state, momentum = self.state[parameter], group["momentum"]
        buffer = state.setdefault("momentum_buffer", torch.zeros_like(gradient))
        buffer.lerp_(gradient, 1 - momentum)
        update = orthogonalised(gradient.lerp(buffer, momentum) if group["nesterov"] else buffer, group)
        # As large as AdamW's (arXiv 2502.16982, section 2.2), for one learning rate.
        size = 0.2 * max(parameter.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * size)


def orthogonalised(update: Tensor, group: dict[str, Any]) -> Tensor:
    """(M, N) float32, all singular values near 1: Newton-Schulz iteration (Jordan 2024), as torch has it."""
    a, b, c = group["ns_coefficients"]
    tall = update.shape[0] > update.shape[1]
    x = update.t() if tall else update
    x = x / x.norm().clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.t()
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.t() if tall else x
