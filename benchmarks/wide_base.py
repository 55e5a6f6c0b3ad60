"""What to expect of a base of realistic width: its cost curve on this machine, and the speed-up that it would allow.

The base has random weights, which costs the same; acceptance is taken from a bench of the embedded model
(`quadratic`, the most masks there), so the forecast holds for an adapter as good as that one.

    python benchmarks/wide_base.py benchmarks/results/former/nano-tokens-per-step.json > wide.json
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from foresay.decoding.planning.planner import PLAIN, expected_rate
from foresay.decoding.step_costs import measure
from foresay.foundation.provenance import provenance
from foresay.models.config import MTPConfig
from foresay.models.masks.model import MaskModel


def wide_model(layers: int, width: int, rank: int, dtype: torch.dtype) -> MaskModel:
    """A Llama of these sizes with random weights and a fresh adapter of `rank`."""
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=11 * width // 4,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 256,
        vocab_size=32_000,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    return MaskModel.from_base(LlamaForCausalLM(config).to(dtype), MTPConfig(rank=rank))


def acceptances(path: Path) -> dict[str, tuple[float, ...]]:
    """Acceptance per position by domain: of `quadratic`, with the most masks measured."""
    results = [row for row in json.loads(path.read_text())["results"] if row["decoder"] == "quadratic"]
    most = max(row["masks"] for row in results)
    return {row["domain"]: tuple(row["acceptance_per_position"]) for row in results if row["masks"] == most}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    model = wide_model(given.layers, given.width, given.rank, getattr(torch, given.dtype))
    costs = measure(model, 1, given.context, given.seconds)
    known = acceptances(given.bench)
    curve = [
        asdict(entry)
        | asdict(cost)
        | {"times_plain": cost.drafted / costs[PLAIN].drafted}
        | {domain: expected_rate(entry, cost, a) * costs[PLAIN].drafted for domain, a in known.items()}
        for entry, cost in costs.items()
    ]
    settings = {name: str(value) for name, value in vars(given).items()}
    parameters = sum(weight.numel() for weight in model.model.parameters())
    print(json.dumps({"curve": curve, "provenance": provenance(parameters=parameters, **settings)}, indent=1))


if __name__ == "__main__":
    main()
