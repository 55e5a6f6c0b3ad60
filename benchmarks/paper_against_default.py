"""The paper's losses, masks and sampler against the defaults: equal base, data, rank, steps and warm-up; three seeds.

    python benchmarks/nano_data.py --out build/nano-data --own 0 --modules 0
    python benchmarks/paper_against_default.py --data build/nano-data/public.jsonl --out build/paper-default

The learning rate of each side is chosen from the same three values on the dev prompts, with the first seed; tokens per
step (quadratic, k = 8) are those of the test prompts. A grid as `foresay study` runs them: a cell that is done stays.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import tyro

from foresay.adapt import Recipe, open_fresh
from foresay.config import MTPConfig, TrainConfig
from foresay.model import MultiTokenModel
from foresay.prompts import Prompt, Split, embedded_prompts
from foresay.study.cell import STARTS, Cell, Figure, Point, Study, Subject, Verdict
from foresay.study.findings import lines_of
from foresay.study.grid import check_folder, grid_of
from foresay.study.material import Material, tokens_per_step

RATES = (3e-4, 1e-3, 3e-3)
SEEDS = (0, 1, 2)
RANK = MTPConfig().rank
DEV, TEST = (
    Figure(split, f"Tokens per step, {split} prompts", "masks", "tokens per step") for split in ("dev", "test")
)


def cells(start: Cell) -> list[Cell]:
    """Either side at every rate."""
    return [
        Cell(
            label=f"{side} {rate:g}",
            mtp=replace(mtp, rank=RANK),
            losses=losses,
            train=replace(start.train, learning_rate=rate),
        )
        for side, (mtp, losses) in STARTS.items()
        for rate in RATES
    ]


def measure(subject: Subject) -> Iterator[Point]:
    """Tokens per step with all masks, by split and domain."""
    masks = subject.cell.mtp.num_masks
    for named, rate in tokens_per_step(subject.model, subject.material, "quadratic", masks).items():
        split, domain = named.split(" ", 1)
        yield Point(split, subject.cell.label, masks, rate, domain)


AGAINST = Study("paper against default", cells, measure, (DEV, TEST), lambda lines: Verdict(""))


def prompts(model: MultiTokenModel, split: Split, most: int) -> list[Prompt]:
    """Embedded prompts that name their split where they name their domain."""
    found = embedded_prompts(model.require_tokenizer(), split, most)
    return [replace(prompt, domain=f"{split} {prompt.domain}") for prompt in found]


def main(data: Path, out: Path, steps: int = 240, per_domain: int = 40) -> None:
    """Run what is missing, print JSON.

    Args:
        data: Training data.
        out: Folder for the results.
        steps: Optimizer steps of each run.
        per_domain: Prompts of each domain and split.
    """
    check_folder(out, AGAINST.name)
    train = TrainConfig(steps=steps, warmup_steps=steps // 10, save_every=0)
    start = Cell(label="start", mtp=STARTS["default"][0], losses=STARTS["default"][1], train=train)
    recipe = Recipe("nano", (data,), out, start.mtp, start.losses, train)
    model = open_fresh(recipe)
    both = [prompt for split in ("dev", "test") for prompt in prompts(model, split, per_domain)]
    grid = grid_of(AGAINST, start, SEEDS, recipe, Material.read(recipe, model, both, max_new_tokens=64))
    first = replace(grid, runs=tuple(run for run in grid.runs if run.recipe.train.seed == SEEDS[0]))
    list(first.run(lambda run, progress: None))
    dev = {label: next(iter(line.values())).median for label, line in lines_of(DEV, first.results).items()}
    chosen = [max((label for label in dev if label.startswith(side)), key=dev.__getitem__) for side in STARTS]
    list(grid.run(lambda run, progress: None, chosen))
    test = lines_of(TEST, grid.results)
    summary = {label: asdict(next(iter(test[label].values()))) for label in chosen}
    print(json.dumps({"dev": dev, "test": summary, "cells": [asdict(result) for result in grid.results]}, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
