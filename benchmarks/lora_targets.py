"""Which linears LoRA is put on, at equal trained weights: tokens per step, what steps cost, and both together.

    python benchmarks/lora_targets.py --base smollm2 --data build/smollm2/own.jsonl --out build/lora-targets

Each choice of `lora_targets` gets the rank whose adapter is nearest in size to `--rank` on all linears, and the same
data, rows, steps, rate and seed. Tokens per step are those of the dev prompts, mean of the domains, for a default may
be chosen by them (`--per-domain 0`: nothing is decoded). What steps cost is measured on the trained adapters in turns,
round after round (`--rounds 0`: not at all), with packed linears. An adapter that is there already is not trained
again. Prints JSON.
"""

import hashlib
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import tyro

from foresay.data.prompts import by_domain, embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import tally
from foresay.decoding.planning.planner import MENU, PLAIN, Entry
from foresay.decoding.step_costs import Costs, measure
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.config import LoadDType, MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.recipe import Recipe
from foresay.training.train import train

sys.path.insert(0, str(Path(__file__).parent))
from masks_against_heads import nearest_rank

NEAR = 0.05
"""Largest difference in trained weights."""
COST_SECONDS = 10.0
"""Of one measurement of one adapter's steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Train what is missing, decode, measure, print JSON."""

    data: Path
    """Training data, one file."""
    out: Path
    """Folder for the adapters."""
    base: str = "nano"
    """The frozen base."""
    targets: tuple[str, ...] = ("all", "attention", "mlp", "output")
    """Choices of `lora_targets`; several names joined by +."""
    rank: int = 16
    """Rank on all linears, which sets the size of every adapter."""
    masks: int = 4
    """Masks in a block."""
    steps: int = 80
    """Optimizer steps."""
    sequences: int = 4
    """Sequences in a step."""
    anchors: int = TrainConfig().anchors
    """Anchors in a sequence."""
    learning_rate: float = 2e-3
    """Peak learning rate, of all alike."""
    seed: int = TrainConfig().seed
    """Seed of the weights at the start and of the training."""
    dtype: LoadDType = TrainConfig().dtype
    """Dtype of the base while adapters are trained; they are measured in float32."""
    per_domain: int = 8
    """Dev prompts of each domain, at most 40 for nano, 20 for other bases; 0: none is decoded."""
    max_new_tokens: int = 64
    """Length of the answers."""
    rounds: int = 3
    """Times that costs of steps are measured; 0: never."""
    context: int = 128
    """Cached tokens of the steps that are timed."""
    threads: int = 0
    """CPU threads; 0 leaves it to torch."""

    def run(self) -> None:
        """Every choice."""
        if self.threads:
            torch.set_num_threads(self.threads)
        configs = {targets: self.config(targets) for targets in self.targets}
        models = {targets: self.trained(targets, config) for targets, config in configs.items()}
        costs = self.costs(models)
        rows = [
            {
                "targets": targets,
                "rank": configs[targets].rank,
                "weights": weights(self.base, configs[targets]),
                "entries": [self.entry(model, entry, costs.get(targets, ())) for entry in self.entries()],
            }
            for targets, model in models.items()
        ]
        own = {name: value for name, value in asdict(self).items() if name != "out"} | {"data": self.data.name}
        print(json.dumps({"rows": rows, "provenance": provenance(**own)}, indent=1))

    def config(self, targets: str) -> MTPConfig:
        """The adapter of this choice that has as many weights as one of all linears."""
        wanted = weights(self.base, self.sized("all", self.rank))
        config = self.sized(targets, nearest_rank(lambda rank: weights(self.base, self.sized(targets, rank)), wanted))
        found = weights(self.base, config)
        if abs(found / wanted - 1) > NEAR:
            raise SystemExit(f"{targets} has {found:,} weights at rank {config.rank}, all linears {wanted:,}")
        return config

    def sized(self, targets: str, rank: int) -> MTPConfig:
        """An adapter's settings; LoRA's scale does not depend on the rank."""
        return MTPConfig(num_masks=self.masks, rank=rank, lora_targets=tuple(targets.split("+")))

    def trained(self, targets: str, config: MTPConfig) -> MultiTokenModel:
        """The trained adapter, in float32."""
        own = TrainConfig(
            steps=self.steps,
            warmup_steps=self.steps // 10,
            sequences=self.sequences,
            anchors=self.anchors,
            learning_rate=self.learning_rate,
            seed=self.seed,
            dtype=self.dtype,
            save_every=0,
            tracker="none",
        )
        said = f"{self.base} {[asdict(one) for one in (config, LossConfig(), own)]}".encode() + self.data.read_bytes()
        folder = self.out / f"{targets}-{config.rank}-{hashlib.sha256(said).hexdigest()[:8]}"
        if not (folder / "foresay.json").is_file():
            recipe = Recipe(self.base, (self.data,), folder, config, LossConfig(), own, overwrite=True)
            done = train(recipe, lambda update: None)
            print(f"{folder.name}: loss {done.loss:.3f}", file=sys.stderr)
        return MultiTokenModel.from_pretrained(folder, dtype="float32")

    def costs(self, models: Mapping[str, MultiTokenModel]) -> dict[str, list[Costs]]:
        """What steps of every adapter take, round after round."""
        found: dict[str, list[Costs]] = {}
        for _ in range(self.rounds):
            for targets, model in models.items():
                found.setdefault(targets, []).append(measure(model.mask_model, 1, self.context, COST_SECONDS))
        return found

    def entries(self) -> list[Entry]:
        """Those of the planner's menu that these adapters serve."""
        return [entry for entry in MENU if 0 < entry.masks <= self.masks]

    def entry(self, model: MultiTokenModel, entry: Entry, rounds: Sequence[Costs]) -> dict[str, Any]:
        """Tokens per step of an entry, and its cost in plain steps."""
        said: dict[str, Any] = {"entry": entry.label}
        if self.per_domain:
            domains = self.decoded(model, entry)
            said |= {"tokens_per_step": statistics.mean(domains.values()), "domains": domains}
        if rounds:
            ratios = [costs[entry].drafted / costs[PLAIN].drafted for costs in rounds]
            said |= {"cost": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}}
        return said

    def decoded(self, model: MultiTokenModel, entry: Entry) -> dict[str, float]:
        """Tokens per step of an entry on the dev prompts, by domain."""
        prompts = embedded_prompts(model.require_tokenizer(), "dev", self.per_domain, self.base)
        config = DecodeConfig(layout=entry.layout, masks=entry.masks, max_new_tokens=self.max_new_tokens)
        return {
            domain: tally(model.decode([prompt.ids for prompt in some], config)).tokens_per_step
            for domain, some in by_domain(prompts).items()
        }


@cache
def weights(base: str, config: MTPConfig) -> int:
    """Trained weights of LoRA."""
    pairs = MultiTokenModel.from_base(base, config, dtype="float32").mask_model.adapter.pairs
    return sum(weight.numel() for pair in pairs for weight in pair.parameters())


if __name__ == "__main__":
    tyro.cli(Comparison).run()
