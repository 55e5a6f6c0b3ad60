"""The paper's losses, masks and sampler against the defaults: equal base, data, rank, steps and warm-up; three seeds.

    python recipes/nano/data.py base --out build/nano
    python benchmarks/paper_against_default.py --data build/nano/rows.jsonl --out build/paper-default

The learning rate of each side is chosen from the same three values on the dev prompts, with the first seed; tokens per
step (quadratic, k = 8) are those of the test prompts. A cell that is there already is not run again.
"""

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from foresay.data.prompts import Prompt, Split, embedded_prompts
from foresay.foundation.files import write_json
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.base.load import load_tokenizer
from foresay.models.config import MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.recipe import Recipe
from foresay.training.runs.validation import HeldOut

SIDES = {
    "paper": (
        MTPConfig(sampler="paper", train_masks=False),
        LossConfig(target="label", real_rows=True, position_weights=()),
    ),
    "default": (MTPConfig(), LossConfig()),
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What all cells share."""

    data: Path
    out: Path
    steps: int
    per_domain: int

    def cell(self, side: str, rate: float, seed: int) -> dict[str, Any]:
        """Train one adapter and decode the dev prompts; or read what came out the last time."""
        mtp, losses = SIDES[side]
        train = TrainConfig(
            steps=self.steps,
            warmup_steps=self.steps // 10,
            learning_rate=rate,
            seed=seed,
            save_every=0,
            eval_batch=40,
            tracker="none",
        )
        recipe = Recipe("nano", (self.data,), self.folder(side, rate, seed), mtp, losses, train, overwrite=True)
        path = recipe.out.with_name(f"{recipe.out.name}.json")
        if not path.is_file():
            done = train(recipe, lambda news: None, self.prompts("dev"))
            said = {"side": side, "rate": rate, "seed": seed, "loss": done.loss, "dev": done.tokens_per_step}
            write_json(path, said | {"mean": mean(done.tokens_per_step)})
        return json.loads(path.read_text())

    def tested(self, cell: dict[str, Any]) -> dict[str, Any]:
        """The same cell with the test prompts decoded."""
        folder = self.folder(cell["side"], cell["rate"], cell["seed"])
        path = folder.with_name(f"{folder.name}.test.json")
        if not path.is_file():
            found = HeldOut(tuple(self.prompts("test")), TrainConfig().eval_tokens, 40)
            write_json(path, found.measure(MultiTokenModel.from_pretrained(folder)).tokens_per_step)
        return cell | {"test": json.loads(path.read_text())}

    def folder(self, side: str, rate: float, seed: int) -> Path:
        """Where an adapter lies: named after all that it depends on."""
        mtp, losses = SIDES[side]
        said = f"{asdict(mtp)} {asdict(losses)} {self.per_domain}".encode() + self.data.read_bytes()
        return self.out / f"{side}-{rate:g}-{seed}-{self.steps}-{hashlib.sha256(said).hexdigest()[:8]}"

    def prompts(self, split: Split) -> list[Prompt]:
        """As many of each domain as asked for."""
        return embedded_prompts(load_tokenizer("nano"), split, self.per_domain)


def mean(rates: dict[str, float]) -> float:
    """Mean over the domains."""
    return statistics.mean(rates.values())


def main(
    data: Path,
    out: Path,
    steps: int = 240,
    per_domain: int = 40,
    rates: Sequence[float] = (3e-4, 1e-3, 3e-3),
    seeds: Sequence[int] = (0, 1, 2),
) -> None:
    """Run what is missing, print JSON.

    Args:
        data: Training data.
        out: Folder for adapters and cells.
        steps: Optimizer steps of each run.
        per_domain: Prompts of each domain, dev and test; at most 40.
        rates: Learning rates that each side chooses from, on the dev prompts, with the first seed.
        seeds: Seeds of the chosen runs.
    """
    out.mkdir(parents=True, exist_ok=True)
    own = Comparison(data, out, steps, per_domain)
    cells, summary = [], {}
    for side in SIDES:
        tried = [own.cell(side, rate, seeds[0]) for rate in rates]
        best = max(tried, key=lambda found: found["mean"])
        chosen = [own.tested(cell) for cell in (best, *(own.cell(side, best["rate"], seed) for seed in seeds[1:]))]
        cells += [cell for cell in tried if cell is not best] + chosen
        summary[side] = {"rate": best["rate"], "test": [mean(run["test"]) for run in chosen]}
    settings = {side: {"mtp": asdict(mtp), "losses": asdict(losses)} for side, (mtp, losses) in SIDES.items()}
    made = provenance(steps=steps, data=data.name, per_domain=per_domain, rates=rates, **settings)
    print(json.dumps({"cells": cells, "summary": summary, "provenance": made}, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
