"""Losses as a user writes them, outside the package."""

from torch import Tensor


def overlap(logits: Tensor, targets: Tensor, teacher: Tensor) -> Tensor:
    """Less where draft and base agree."""
    return -(logits.float().softmax(-1) * teacher.float().softmax(-1)).sum(-1)


def one_number(logits: Tensor, targets: Tensor, teacher: Tensor) -> Tensor:
    """Wrong: a loss a row is wanted."""
    return logits.sum()
