"""What moves the weights: AdamW for all of them, or Muon for the matrices that it is made for."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.experimental import implicit_replication
from torch.optim import Optimizer

from foresay.foundation.machine import multiplies_bfloat16
from foresay.training.config import OptimizerName


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
        update = gradient.lerp(buffer, momentum) if group["nesterov"] else buffer
        if isinstance(update, DTensor):
            # Gathered once, and every process makes the same products: on shards, each product would gather anew.
            whole = orthogonalised(update.full_tensor(), group)
            update = distribute_tensor(whole, update.device_mesh, update.placements, src_data_rank=None)
        else:
            update = orthogonalised(update, group)
        # As large as AdamW's (arXiv 2502.16982, section 2.2), for one learning rate.
        size = 0.2 * max(parameter.shape) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * size)


class AdamW(torch.optim.AdamW):
    """torch's, for shards and whole tensors in one group: what is whole is the same in every process.

    On CUDA torch's moves a group at a time, and refuses a mixed one; groups of their own would make checkpoints of
    shards unlike those of whole weights.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        with implicit_replication():
            return super().step(closure)


def optimizers(
    parameters: Iterable[nn.Parameter], name: OptimizerName, weight_decay: float, vocabulary: int, beta: float = 0.999
) -> tuple[Optimizer, ...]:
    """Fresh optimizers, every parameter in one of them; only matrices decay.

    `muon` takes the matrices that map states to states, with updates of AdamW's size (arXiv 2502.16982), so that one
    learning rate serves both; AdamW (second beta: `beta`) keeps vectors, whatever is stacked, and the matrices with a
    row for each of `vocabulary` tokens.
    """
    rest: list[nn.Parameter] = []
    hidden: list[nn.Parameter] = []
    for parameter in parameters:
        maps = parameter.ndim == 2 and vocabulary not in parameter.shape
        (hidden if name == "muon" and maps else rest).append(parameter)
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    made: list[Optimizer] = []
    if any(group["params"] for group in groups):
        made.append(AdamW([group for group in groups if group["params"]], betas=(0.9, beta)))
    if hidden:
        kind = torch.optim.Muon if multiplies_bfloat16(hidden[0].device) else Float32Muon
        made.append(kind(hidden, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    return tuple(made)


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
