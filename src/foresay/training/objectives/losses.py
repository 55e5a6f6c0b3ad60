"""The losses of a training step as pure functions over rows: paper A, section 4, and distillation.

Denominators are counted over the whole batch beforehand, so that sums over chunks and processes are the same loss.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from foresay.foundation.errors import ConfigError, require
from foresay.training.config import LossConfig

OwnLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A loss of the user's own: logits (N, V), targets (N,) int64, the base's logits (N, V) -> (N,)."""
LOGITS_AT_ONCE = 2**25
"""Logits in memory at once, rows x vocabulary: 128 MiB in float32, and a few times that for their gradient."""


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-log q(target) of each row: `logits` (N, V) of any float dtype, `targets` (N,) int64 -> (N,) float32."""
    return functional.cross_entropy(logits.float(), targets, reduction="none")


def kl_divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(p || q) of each row in nats: `logits` (N, V) of q, `teacher` (N, V) logits of p -> (N,) float32."""
    p, q = teacher.float().log_softmax(-1), logits.float().log_softmax(-1)
    return functional.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def total_variation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Half the L1 distance of q and p, the chance that sampling rejects a draft of q; shapes as `kl_divergence`."""
    return (logits.float().softmax(-1) - teacher.float().softmax(-1)).abs().sum(-1) / 2


def head_loss(logits: Tensor, targets: Tensor, teacher: Tensor | None, config: LossConfig) -> Tensor:
    """What a head pays on each row, (N,) float32: hard target and distillation, weighted as `config` says.

    `logits` (N, V), `targets` (N,) int64, `teacher` (N, V) logits of the base, None when nothing is distilled.
    """
    loss = config.hard_weight * cross_entropy(logits, targets)
    if teacher is not None:
        teacher = teacher / config.teacher_temperature
        loss = loss + config.kl_weight * kl_divergence(logits, teacher)
        loss = loss + config.variation_weight * total_variation(logits, teacher)
        if config.own_loss:
            loss = loss + paid_to(own_loss(config.own_loss), logits, targets, teacher)
    return loss


@cache
def own_loss(name: str) -> OwnLoss:
    """The function that `LossConfig.own_loss` names as MODULE:FUNCTION. Raises ConfigError where there is none."""
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as reason:
        raise ConfigError(
            f"own_loss is {name!r}, which cannot be imported ({reason}); give MODULE:FUNCTION of a module on PYTHONPATH"
        ) from reason
    require(callable(found), f"own_loss is {name!r}, and that is no function; give MODULE:FUNCTION")
    loss: OwnLoss = found
    return loss


def paid_to(loss: OwnLoss, logits: Tensor, targets: Tensor, teacher: Tensor) -> Tensor:
    """What each row pays, (N,) float32. Raises ConfigError for anything but a number a row."""
    paid = loss(logits, targets, teacher)
    if not isinstance(paid, Tensor) or paid.shape != targets.shape:
        found = tuple(paid.shape) if isinstance(paid, Tensor) else type(paid).__name__
        raise ConfigError(f"a loss of your own gave {found} for {len(targets)} rows; return a tensor with a loss a row")
    return paid.float()


def consistency_sum(states: Tensor, anchors: Tensor, shares: Tensor, over: Literal["mean", "sum"] = "mean") -> Tensor:
    """Latent consistency (paper A, eq. 1), mean or sum over the width.

    `states` (N, D) of mask rows; `anchors` (N, D) states of the real rows at the same positions, never a source of
    gradient; `shares` (N,) = 1 / |S_t| of each row's position.
    """
    squares = (states.float() - anchors.detach().float()).pow(2)
    distance = squares.mean(dim=-1) if over == "mean" else squares.sum(dim=-1)
    return (distance * shares).sum()


def chunks(count: int, vocabulary: int) -> list[slice]:
    """`count` rows in turns, so few at once that their logits stay small."""
    size = max(LOGITS_AT_ONCE // vocabulary, 1)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def backward_in_chunks(states: Tensor, vocabulary: int, loss: Callable[[slice, Tensor], Tensor]) -> None:
    """Backward of the sum of `loss(rows, states[rows])` over chunks of the rows of `states` (N, D).

    Each chunk's graph, logits included, is gone before the next begins: only gradients of `states` are kept.
    """
    gradients = torch.zeros_like(states)
    for rows in chunks(len(states), vocabulary):
        leaf = states[rows].detach().requires_grad_()
        loss(rows, leaf).backward()  # type: ignore[no-untyped-call]
        if leaf.grad is not None:
            gradients[rows] = leaf.grad
    if states.requires_grad:
        states.backward(gradients)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Teacher:
    """What the frozen base says at real rows, from the base pass."""

    argmax: Tensor
    """(B, R) int64: the base's next token at every row that carries loss, -1 elsewhere."""
    cross_entropy: float
    """Sum of the base's own cross-entropy over those rows."""


@torch.no_grad()
def teach(
    unembed: Callable[[Tensor], Tensor], vocabulary: int, states: Tensor, ids: Tensor, carries: Tensor
) -> Teacher:
    """The base's argmax and cross-entropy at the rows in `carries`, a few rows at a time.

    `states` (B, R, D), `ids` (B, R) int64, `carries` (B, R) bool: row t predicts a token of the loss.
    """
    argmax = torch.full_like(ids, -1)
    sequence, row = carries.nonzero().unbind(1)
    total = 0.0
    for some in chunks(len(row), vocabulary):
        logits = unembed(states[sequence[some], row[some]])
        argmax[sequence[some], row[some]] = logits.argmax(-1)
        total += cross_entropy(logits, ids[sequence[some], row[some] + 1]).sum().item()
    return Teacher(argmax, total)
