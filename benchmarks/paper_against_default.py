"""The paper's losses, masks and sampler against the defaults: equal base, data, rank, steps and warm-up.

    python recipes/nano/data.py base --out build/nano
    python benchmarks/paper_against_default.py --data build/nano/rows.jsonl --out build/paper-default

The learning rate of each side is chosen from the same values on the dev prompts, with the first seed; tokens per step
(quadratic, k = 8) are those of the test prompts. A cell that is there already is not run again.
"""

import hashlib
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from foresay.data.prompts import Prompt, Split, embedded_prompts
from foresay.foundation.files import write_json
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.base.load import load_tokenizer
from foresay.models.config import LoadDType, MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.recipe import Recipe
from foresay.training.runs.validation import HeldOut
from foresay.training.train import train

SIDES = {
    "paper": (
        MTPConfig(lora_targets=("all",), sampler="paper", train_masks=False),
        LossConfig(target="label", real_rows=True, position_weights=()),
    ),
    "default": (MTPConfig(), LossConfig()),
}
Cell = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Run what is missing, print JSON."""

    data: Path
    """Training data, one file."""
    out: Path
    """Folder for adapters and cells."""
    base: str = "nano"
    """The frozen base."""
    steps: int = 240
    """Optimizer steps of each run."""
    trial_steps: int = 0
    """Optimizer steps of the runs that choose the learning rate; 0: as many."""
    sequences: int = TrainConfig().sequences
    """Sequences in a step."""
    rank: int = MTPConfig().rank
    """Rank of the gated LoRA, on both sides."""
    dtype: LoadDType = TrainConfig().dtype
    """Dtype of the base while adapters are trained."""
    per_domain: int = 40
    """Test prompts of each domain; at most 40."""
    dev_per_domain: int = 40
    """Dev prompts of each domain; at most 40 for nano, 20 for other bases."""
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    """Learning rates that each side chooses from, on the dev prompts, with the first seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the chosen runs."""

    def run(self) -> None:
        """Every cell of both sides, and what the chosen ones decode."""
        self.out.mkdir(parents=True, exist_ok=True)
        cells, summary = [], {}
        for side in SIDES:
            tried = list(self.tries(side))
            best = max(tried, key=lambda found: found["mean"])
            chosen = [self.tested(self.cell(side, best["rate"], seed, self.steps)) for seed in self.seeds]
            cells += [cell for cell in tried if self.folder(cell) not in map(self.folder, chosen)] + chosen
            summary[side] = {"rate": best["rate"], "test": [mean(run["test"]) for run in chosen]}
        print(json.dumps({"cells": cells, "summary": summary, "provenance": self.provenance()}, indent=1))

    def tries(self, side: str) -> Iterator[Cell]:
        """A run for each learning rate, with the first seed."""
        for rate in self.rates:
            yield self.cell(side, rate, self.seeds[0], self.trial_steps or self.steps)

    def cell(self, side: str, rate: float, seed: int, steps: int) -> Cell:
        """Train one adapter and decode the dev prompts; or read what came out the last time."""
        said: Cell = {"side": side, "rate": rate, "seed": seed, "steps": steps}
        folder = self.folder(said)
        path = folder.with_name(f"{folder.name}.json")
        if not path.is_file():
            recipe = Recipe(self.base, (self.data,), folder, *self.settings(side), self.training(said), overwrite=True)
            done = train(recipe, lambda news: None, self.prompts("dev"))
            found = {"loss": done.loss, "dev": done.tokens_per_step, "mean": mean(done.tokens_per_step)}
            write_json(path, said | found)
            print(f"{folder.name}: dev {found['mean']:.3f}", file=sys.stderr)
        return json.loads(path.read_text())

    def tested(self, cell: Cell) -> Cell:
        """The same cell with the test prompts decoded."""
        folder = self.folder(cell)
        path = folder.with_name(f"{folder.name}.test.json")
        if not path.is_file():
            found = HeldOut(tuple(self.prompts("test")), TrainConfig().eval_tokens, 40)
            model = MultiTokenModel.from_pretrained(folder, dtype=self.dtype)
            write_json(path, found.measure(model).tokens_per_step)
        return cell | {"test": json.loads(path.read_text())}

    def training(self, cell: Cell) -> TrainConfig:
        """How a cell is trained."""
        return TrainConfig(
            steps=cell["steps"],
            warmup_steps=cell["steps"] // 10,
            sequences=self.sequences,
            learning_rate=cell["rate"],
            seed=cell["seed"],
            dtype=self.dtype,
            save_every=0,
            eval_batch=40,
            tracker="none",
        )

    def settings(self, side: str) -> tuple[MTPConfig, LossConfig]:
        """Adapter and losses of a side."""
        mtp, losses = SIDES[side]
        return replace(mtp, rank=self.rank), losses

    def folder(self, cell: Cell) -> Path:
        """Where an adapter lies: named after all that it and its decodes depend on."""
        name = "{side}-{rate:g}-{seed}-{steps}".format(**cell)
        shared = [self.base, self.sequences, self.dtype, self.per_domain, self.dev_per_domain]
        said = f"{shared} {[asdict(one) for one in self.settings(cell['side'])]}".encode() + self.data.read_bytes()
        return self.out / f"{name}-{hashlib.sha256(said).hexdigest()[:8]}"

    def prompts(self, split: Split) -> list[Prompt]:
        """As many of each domain as asked for."""
        most = self.dev_per_domain if split == "dev" else self.per_domain
        return embedded_prompts(load_tokenizer(self.base), split, most, self.base)

    def provenance(self) -> dict[str, Any]:
        """What the file says of how it was made."""
        sides = {side: dict(zip(("mtp", "losses"), map(asdict, self.settings(side)))) for side in SIDES}
        own = asdict(self) | {"data": self.data.name}
        return provenance(**{name: value for name, value in own.items() if name != "out"}, **sides)


def mean(rates: dict[str, float]) -> float:
    """Mean over the domains."""
    return statistics.mean(rates.values())


if __name__ == "__main__":
    tyro.cli(Comparison).run()
