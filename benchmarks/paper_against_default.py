"""The paper's losses, masks and sampler against the defaults: equal base, data, rank, steps and warm-up; three seeds.

    python recipes/nano/data.py base --out build/nano
    python benchmarks/paper_against_default.py --data build/nano/rows.jsonl --out build/paper-default

The learning rate of each side is chosen from the same three values on the dev prompts, with the first seed; tokens per
step (quadratic, k = 8) are those of the test prompts. A cell that is there already is not run again.
"""

import json
import statistics
from dataclasses import asdict
from pathlib import Path

import tyro

from foresay.adapt import Recipe, adapt
from foresay.config import LossConfig, MTPConfig, TrainConfig
from foresay.heldout import HeldOut
from foresay.modelling.load import load_tokenizer
from foresay.prompts import Prompt, Split, embedded_prompts
from foresay.provenance import provenance

SIDES = {
    "paper": (MTPConfig(sampler="paper", train_masks=False), LossConfig(target="label", real_rows=True)),
    "default": (MTPConfig(), LossConfig()),
}
RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)


def cell(side: str, rate: float, seed: int, steps: int, data: Path, out: Path) -> dict[str, object]:
    """Train one adapter and decode; or read what came out the last time."""
    name = f"{side}-{rate:g}-{seed}-{steps}"
    folder, path = out / name, out / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    mtp, losses = SIDES[side]
    train = TrainConfig(
        steps=steps,
        warmup_steps=steps // 10,
        learning_rate=rate,
        seed=seed,
        save_every=0,
        eval_batch=40,
        tracker="none",
    )
    recipe = Recipe("nano", (data,), folder, mtp, losses, train, overwrite=True)
    done = adapt(recipe, lambda news: None, prompts("dev"))
    test = HeldOut(tuple(prompts("test")), train.eval_tokens, 40).measure(done.model).tokens_per_step
    found = {"side": side, "rate": rate, "seed": seed, "loss": done.loss, "dev": done.tokens_per_step, "test": test}
    fresh = out / f"{name}.new"
    fresh.write_text(json.dumps(found))
    fresh.rename(path)
    return found


def prompts(split: Split) -> list[Prompt]:
    """40 of each domain."""
    return embedded_prompts(load_tokenizer("nano"), split, 40)


def mean(rates: dict[str, float]) -> float:
    """Mean over the domains."""
    return statistics.mean(rates.values())


def main(data: Path, out: Path, steps: int = 240) -> None:
    """Run what is missing, print JSON.

    Args:
        data: Training data.
        out: Folder for adapters and cells.
        steps: Optimizer steps of each run.
    """
    out.mkdir(parents=True, exist_ok=True)
    cells, chosen = [], {}
    for side in SIDES:
        tried = [cell(side, rate, SEEDS[0], steps, data, out) for rate in RATES]
        best = max(tried, key=lambda found: mean(found["dev"]))
        chosen[side] = [best] + [cell(side, best["rate"], seed, steps, data, out) for seed in SEEDS[1:]]
        cells += tried + chosen[side][1:]
    summary = {
        side: {"rate": runs[0]["rate"], "test": [mean(run["test"]) for run in runs]} for side, runs in chosen.items()
    }
    settings = {side: {"mtp": asdict(mtp), "losses": asdict(losses)} for side, (mtp, losses) in SIDES.items()}
    said = {"cells": cells, "summary": summary, "provenance": provenance(steps=steps, data=data.name, **settings)}
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
