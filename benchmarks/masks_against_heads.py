"""Masks against heads on one frozen base: same data, steps and sequences and, within 10 %, as many trained weights.

    python benchmarks/masks_against_heads.py --data build/nano/mix.jsonl --out build/masks-heads > masks-heads.json

Heads are layers of the base's own kind, so their number sets the weights; masks get the rank that comes nearest. The
learning rate of each side is the better one of `--rates` on the dev prompts. Tokens per step and per second are those
of the test prompts, in one interleaved run with plain decoding; with `--repeats 0` nothing is timed.

With `--anchors 0` masks stand after every token of an answer, so that as many rows pay a loss as heads have.
"""

import hashlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from foresay.data.prompts import Prompt, Split, by_domain, embedded_prompts
from foresay.decoding.config import DecodeConfig, FixedLayout
from foresay.decoding.metrics import tally
from foresay.evaluation.config import BenchConfig
from foresay.evaluation.speed.bench import bench
from foresay.foundation.files import write_json
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.base.load import load_tokenizer
from foresay.models.config import Family, HeadsConfig, LoadDType, MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.recipe import Recipe
from foresay.training.train import train

NEAR = 0.1
"""Largest difference in trained weights."""
LAYOUTS: tuple[FixedLayout, ...] = ("linear", "quadratic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Train what is missing, bench, print JSON."""

    data: Path
    """Training data, one file."""
    out: Path
    """Folder for the adapters."""
    base: str = "nano"
    """The frozen base."""
    heads: tuple[int, ...] = (2, 3, 4)
    """Numbers of heads, n; masks are n - 1."""
    steps: int = 300
    """Optimizer steps of each training."""
    trial_steps: int = 0
    """Optimizer steps of the runs that choose the learning rate; 0: as many."""
    sequences: int = TrainConfig().sequences
    """Sequences in a step."""
    anchors: int = TrainConfig().anchors
    """Anchors in a sequence; 0: every token of an answer. Heads learn from every one in any case."""
    dtype: LoadDType = TrainConfig().dtype
    """Dtype of the base while masks are trained; heads are trained in float32."""
    rates: tuple[float, ...] = (1e-3, 3e-3)
    """Learning rates to choose from."""
    dev_per_domain: int = 40
    """Dev prompts of each domain; at most 40 for nano, 20 for other bases."""
    per_domain: int = 10
    """Test prompts of each domain."""
    max_new_tokens: int = 96
    """Length of the answers."""
    repeats: int = 3
    """Times that everything is timed; 0: tokens per step alone."""

    def run(self) -> None:
        """Both families for each number of heads."""
        self.out.mkdir(parents=True, exist_ok=True)
        rows = [self.row(config) for n in self.heads for config in self.pair(n)]
        own = {name: value for name, value in asdict(self).items() if name != "out"} | {"data": self.data.name}
        print(json.dumps({"rows": rows, "provenance": provenance(**own)}, indent=1))

    def pair(self, n: int) -> Iterator[Family]:
        """`n` heads, and masks with as many drafts and nearly as many weights."""
        beside = HeadsConfig(heads=n)
        yield beside
        yield MTPConfig(num_masks=n - 1, rank=rank_for(self.base, n - 1, weights(self.base, beside)))

    def row(self, config: Family) -> dict[str, Any]:
        """One family, trained at its better rate and decoded."""
        scores = {rate: mean(self.trained(config, rate, self.trial_steps or self.steps)) for rate in self.rates}
        rate = max(scores, key=lambda rate: scores[rate])
        dev = self.trained(config, rate, self.steps)
        return {
            "family": "heads" if isinstance(config, HeadsConfig) else "masks",
            "drafts": config.drafts,
            "config": asdict(config),
            "weights": weights(self.base, config),
            "rate": rate,
            "tried": scores,
            "loss_rows": dev["loss_rows"],
            "results": self.results(MultiTokenModel.from_pretrained(self.folder(config, rate, self.steps))),
        }

    def trained(self, config: Family, rate: float, steps: int) -> dict[str, Any]:
        """Tokens per step on the dev prompts, and the rows that paid a loss; what is there is not trained again."""
        folder = self.folder(config, rate, steps)
        path, rows = folder.with_name(f"{folder.name}.json"), list[float]()
        if not path.is_file():
            own = self.training(config, rate, steps)
            recipe = Recipe(self.base, (self.data,), folder, config, LossConfig(), own, overwrite=True)
            done = train(recipe, lambda update: rows.append(update.progress.losses.rows), self.prompts("dev"))
            write_json(path, {"dev": done.tokens_per_step, "loss_rows": sum(rows)})
            print(f"{folder.name}: dev {mean({'dev': done.tokens_per_step}):.3f}", file=sys.stderr)
        return json.loads(path.read_text())

    def training(self, config: Family, rate: float, steps: int) -> TrainConfig:
        """How a family is trained."""
        own = TrainConfig(
            steps=steps,
            warmup_steps=steps // 10,
            sequences=self.sequences,
            learning_rate=rate,
            save_every=0,
            eval_batch=40,
            tracker="none",
        )
        heads = isinstance(config, HeadsConfig)
        return replace(own, dtype="float32") if heads else replace(own, dtype=self.dtype, anchors=self.anchors)

    def folder(self, config: Family, rate: float, steps: int) -> Path:
        """Where an adapter lies: named after all that it depends on."""
        kind = f"heads-{config.heads}" if isinstance(config, HeadsConfig) else f"masks-{config.num_masks}-{config.rank}"
        settings = [asdict(config), asdict(LossConfig()), asdict(self.training(config, rate, steps))]
        asked = f"{self.base} {self.dev_per_domain} {settings}".encode() + self.data.read_bytes()
        return self.out / f"{kind}-{rate:g}-{steps}-{hashlib.sha256(asked).hexdigest()[:8]}"

    def results(self, model: MultiTokenModel) -> list[dict[str, Any]]:
        """What the test prompts give."""
        prompts = self.prompts("test")
        if not self.repeats:
            return list(self.tokens_alone(model, prompts))
        asked = BenchConfig(layouts=LAYOUTS, max_new_tokens=self.max_new_tokens, repeats=self.repeats, lookup_tokens=0)
        return [asdict(result) for result in bench(model, prompts, asked).results]

    def tokens_alone(self, model: MultiTokenModel, prompts: list[Prompt]) -> Iterator[dict[str, Any]]:
        """Tokens per step by layout and domain."""
        for layout in LAYOUTS:
            config = DecodeConfig(layout=layout, max_new_tokens=self.max_new_tokens)
            for domain, some in by_domain(prompts).items():
                rate = tally(model.decode([prompt.ids for prompt in some], config)).tokens_per_step
                yield {"layout": layout, "domain": domain, "prompts": len(some), "tokens_per_step": rate}

    def prompts(self, split: Split) -> list[Prompt]:
        """As many of each domain as asked for."""
        most = self.dev_per_domain if split == "dev" else self.per_domain
        return embedded_prompts(load_tokenizer(self.base), split, most, self.base)


def mean(found: dict[str, Any]) -> float:
    """Tokens per step on the dev prompts, mean over the domains."""
    return statistics.mean(found["dev"].values())


def weights(base: str, config: Family) -> int:
    """Trained weights."""
    model = MultiTokenModel.from_base(base, config, dtype="float32")
    return sum(p.numel() for p in model.added.parameters() if p.requires_grad)


def rank_for(base: str, masks: int, wanted: int) -> int:
    """The rank whose adapter is nearest in size."""
    rank = nearest_rank(lambda rank: weights(base, MTPConfig(num_masks=masks, rank=rank)), wanted)
    found = weights(base, MTPConfig(num_masks=masks, rank=rank))
    if abs(found / wanted - 1) > NEAR:
        raise SystemExit(f"{masks} masks have at least {found:,} weights, the heads {wanted:,}: give more heads")
    return rank


def nearest_rank(weights_at: Callable[[int], int], wanted: int) -> int:
    """The rank with nearly so many weights, of which each more has equally many."""
    least, step = map(weights_at, (1, 2))
    return max(1, round(1 + (wanted - least) / (step - least)))


if __name__ == "__main__":
    tyro.cli(Comparison).run()
