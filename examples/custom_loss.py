"""A loss of your own, beside or in place of those of foresay: here the focal loss (Lin et al. 2017), which asks most of
rows that are wrong.

python examples/custom_loss.py BASE CHATS.jsonl OUT [STEPS]
"""

import sys
from pathlib import Path

from torch import Tensor

from foresay import LossConfig, MTPConfig, Recipe, TrainConfig, train


def focal(logits: Tensor, targets: Tensor, teacher: Tensor) -> Tensor:
    """-(1 - q)^2 log q of each row: `logits` (N, V) of the draft, `targets` (N,), `teacher` (N, V) the base's."""
    log_q = logits.float().log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    return -((1 - log_q.exp()) ** 2) * log_q


if __name__ == "__main__":
    base, chats, out, steps = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int((*sys.argv, "500")[4])
    # The module is known by its name, so that every process of a training finds it: PYTHONPATH=examples elsewhere.
    losses = LossConfig(hard_weight=0, own_loss="custom_loss:focal")
    settings = TrainConfig(steps=steps, warmup_steps=max(steps // 10, 1), heldout=2)
    recipe = Recipe(base, (chats,), out, mtp=MTPConfig(num_masks=4, rank=16), train=settings, losses=losses)
    result = train(recipe, lambda update: None)
    print(f"{result.steps} steps, the loss is {result.loss:.2f}; the adapter lies in {result.folder}")
