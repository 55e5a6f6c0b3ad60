"""Masks against heads on one frozen base: same data, steps and sequences and, within 10 %, as many trained weights.

    python benchmarks/masks_against_heads.py --data build/nano/mix.jsonl --out build/masks-heads > masks-heads.json

Heads are layers of the base's own kind, so their number sets the weights; masks get the rank that comes nearest. The
learning rate of each side is the better one of `--rates` on the dev prompts; tokens per step and per second are those
of the test prompts, in one interleaved run with plain decoding.
"""

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import tyro

from foresay.data.prompts import embedded_prompts
from foresay.evaluation.config import BenchConfig
from foresay.evaluation.speed.bench import bench
from foresay.foundation.files import write_json
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.base.load import load_tokenizer
from foresay.models.config import Family, HeadsConfig, MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.recipe import Recipe

NEAR = 0.1
"""Largest difference in trained weights."""


def weights(base: str, config: Family) -> int:
    """Trained weights."""
    model = MultiTokenModel.from_base(base, config)
    return sum(p.numel() for p in model.added.parameters() if p.requires_grad)


def nearest_rank(base: str, masks: int, wanted: int) -> int:
    """The rank whose adapter is nearest in size."""
    least, step = (weights(base, MTPConfig(num_masks=masks, rank=rank)) for rank in (1, 2))
    rank = max(1, round(1 + (wanted - least) / (step - least)))
    found = weights(base, MTPConfig(num_masks=masks, rank=rank))
    if abs(found / wanted - 1) > NEAR:
        raise SystemExit(f"{masks} masks have at least {least:,} weights, the heads {wanted:,}: give more heads")
    return rank


def trained(config: Family, recipe: Recipe, rates: Sequence[float]) -> tuple[float, Path]:
    """The better learning rate on the dev prompts, and its adapter; what is there already is not trained again."""
    scores = {}
    family = f"heads-{config.heads}" if isinstance(config, HeadsConfig) else f"masks-{config.num_masks}-{config.rank}"
    [data] = recipe.data
    asked = f"{recipe.base} {asdict(config)} {asdict(LossConfig())} {asdict(recipe.train)}".encode()
    name = f"{family}-{hashlib.sha256(asked + Path(data).read_bytes()).hexdigest()[:8]}"
    for rate in rates:
        folder, said = recipe.out / f"{name}-{rate:g}", recipe.out / f"{name}-{rate:g}.json"
        if not said.is_file():
            train = TrainConfig(**asdict(recipe.train) | {"learning_rate": rate})
            own = Recipe(recipe.base, recipe.data, folder, config, LossConfig(), train, overwrite=True)
            dev = embedded_prompts(load_tokenizer(recipe.base), "dev", 40)
            write_json(said, {"dev": train(own, lambda news: None, dev).tokens_per_step})
        scores[folder] = (statistics.mean(json.loads(said.read_text())["dev"].values()), rate)
    best = max(scores, key=lambda folder: scores[folder])
    return scores[best][1], best


def main(
    data: Path,
    out: Path,
    *,
    base: str = "nano",
    heads: Sequence[int] = (2, 3, 4),
    steps: int = 300,
    rates: Sequence[float] = (1e-3, 3e-3),
    per_domain: int = 10,
    max_new_tokens: int = 96,
    repeats: int = 3,
) -> None:
    """Train what is missing, bench, print JSON.

    Args:
        data: Training data.
        out: Folder for the adapters.
        base: The frozen base.
        heads: Numbers of heads, n; masks are n - 1.
        steps: Optimizer steps of each training.
        rates: Learning rates to choose from.
        per_domain: Test prompts of each domain.
        max_new_tokens: Length of the answers.
        repeats: Times that everything is timed.
    """
    out.mkdir(parents=True, exist_ok=True)
    train = TrainConfig(steps=steps, warmup_steps=steps // 10, save_every=0, eval_batch=40, tracker="none")
    recipe = Recipe(base, (data,), out, train=train)
    rows = []
    for n in heads:
        beside = HeadsConfig(heads=n)
        wanted = weights(base, beside)
        masks = MTPConfig(num_masks=n - 1, rank=nearest_rank(base, n - 1, wanted))
        for config in (beside, masks):
            rate, folder = trained(config, recipe, rates)
            model = MultiTokenModel.from_pretrained(folder)
            asked = BenchConfig(
                layouts=("linear", "quadratic"), max_new_tokens=max_new_tokens, repeats=repeats, lookup_tokens=0
            )
            measured = bench(model, embedded_prompts(model.require_tokenizer(), "test", per_domain), asked)
            rows.append({
                "family": "heads" if config is beside else "masks",
                "drafts": n - 1,
                "config": asdict(config),
                "weights": weights(base, config),
                "rate": rate,
                "results": [asdict(result) for result in measured.results],
            })  # fmt: skip
    print(json.dumps({"rows": rows, "provenance": provenance(steps=steps, data=data.name, base=base)}, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
