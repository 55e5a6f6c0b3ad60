"""Teach a base to draft its own future: from chats in a file to a saved adapter.

python examples/train_in_ten_lines.py BASE CHATS.jsonl OUT [STEPS]
"""

import sys
from pathlib import Path

from foresay import MTPConfig, Recipe, TrainConfig, train

base, chats, out, steps = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int((*sys.argv, "500")[4])
settings = TrainConfig(steps=steps, warmup_steps=max(steps // 10, 1), heldout=2)
recipe = Recipe(base, (chats,), out, mtp=MTPConfig(num_masks=4, rank=16), train=settings)
result = train(recipe, lambda update: None)
print(f"{result.steps} steps in {result.seconds:.0f} s; the adapter lies in {result.folder}")
print("tokens a step on prompts that were held out:", result.tokens_per_step)
