"""Bytes for tokens (paper B, 3.3): heads that say up to 8 bytes at once.

    python recipes/heads/byte_level.py --data build/nano/rows.jsonl --out build/bytes

What is measured: bits per byte of held-out text by head 1, and bytes per forward when heads draft (greedy) on
held-out prompts. Scaled down: sizes of 1M and 3M.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import tyro
from grid import PACE, Experiment, Precision, Values, cells, plot, run_all, summary

from foresay.data.prompts import by_domain, embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.model import MultiTokenModel
from foresay.training.config import PretrainConfig

SIZES, HEADS, SEEDS, STEPS = ("1M-deep", "3M-deep"), (1, 4, 8), (0, 1), 600
"""The whole grid."""
MOST = 128
"""Bytes that are generated for a prompt."""


def bytes_per_forward(model: MultiTokenModel, prompts: int) -> Values:
    """By number of heads used, mean of the domains; one head says one."""
    own = embedded_prompts(model.require_tokenizer(), "test", prompts)
    found = {"1": 1.0}
    drafts = model.drafts
    for masks in [m for m in (1, 3, 7) if m <= drafts]:
        # As in the paper: the heads of the row that was accepted last draft. It costs heads no rows.
        config = DecodeConfig(layout="quadratic", masks=masks, max_new_tokens=MOST)
        rates = []
        for group in by_domain(own).values():
            answers = model.decode([prompt.ids for prompt in group], config)
            rates.append(sum(len(a.tokens) for a in answers) / sum(len(a.steps) for a in answers))
        found[str(masks + 1)] = sum(rates) / len(rates)
    return {"bytes per forward": found}


def main(
    data: Path,
    out: Path,
    *,
    sizes: Sequence[str] = SIZES,
    heads: Sequence[int] = HEADS,
    seeds: Sequence[int] = SEEDS,
    steps: int = STEPS,
    dtype: Precision = "float32",
    prompts: int = 8,
) -> None:
    """Run what is missing, print JSON, draw `bytes.png`.

    Args:
        data: Training texts (`python recipes/nano/data.py base`).
        out: Folder for models and cells.
        sizes: Sizes of models.
        heads: Numbers of heads, n.
        seeds: Seeds.
        steps: Optimizer steps of 4,096 bytes.
        dtype: Dtype of products; bfloat16 is faster where the processor has it.
        prompts: Held-out prompts of each domain.
    """
    out.mkdir(parents=True, exist_ok=True)
    train = PretrainConfig(steps=steps, batch_tokens=4096, length=1024, dtype=dtype, **PACE)
    experiment = Experiment(
        data,
        out,
        "bytes",
        train,
        lambda model: bytes_per_forward(model, prompts),
        replicated=True,
        measuring=f"{prompts} prompts",
    )
    asked = [(experiment, cell) for cell in cells(sizes, heads, seeds)]
    found = run_all(asked)
    whole = {"cells": (len(found), len(cells(SIZES, HEADS, SEEDS))), "steps": (steps, STEPS)}
    said = summary(found, whole, **asdict(train))
    plot(said, out / "bytes.png", "Byte-level models", "heads used", "bytes per forward")
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
