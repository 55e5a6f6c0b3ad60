"""What a step costs in plain steps on a CPU: linear and quadratic, on plain weights and on packed ones.

A Llama of SmolLM2-135M's shape with random weights, which cost the same; batch 1. Every choice of LoRA is measured on
plain and on packed weights, in turn, round after round; figures are medians and minima over the rounds, ratios those
within a round. A minimum tells what the machine can, whatever else runs on it. transformers' own greedy `generate`
stands beside: seconds of a token.

    python benchmarks/step_cost.py --threads 2 --rounds 5 > step-cost.json
    python benchmarks/step_cost.py --products > products.json
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from itertools import product
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from foresay.decoding.planning.planner import PLAIN
from foresay.decoding.step_costs import Costs, measure
from foresay.foundation.provenance import provenance
from foresay.models.base import packed_linears
from foresay.models.config import MTPConfig
from foresay.models.masks.model import MaskModel

WIDTH, INNER, VOCABULARY = 576, 1536, 49_152
SHAPES = (
    (WIDTH, WIDTH),
    (WIDTH, 192),
    (WIDTH, 960),
    (WIDTH, INNER),
    (WIDTH, 2 * INNER),
    (INNER, WIDTH),
    (WIDTH, VOCABULARY),
)
"""Inputs and outputs of the linears: alone, and together where they share their input."""  # fmt: skip
ROWS, HINTS = (1, 4, 9, 16, 25, 64, 256), (1, 16, 64)
TOKENS = 12
"""Tokens of transformers' `generate` in a round."""
OUT_OF_CACHE = 64 * 2**20
"""Bytes of weights that are multiplied in turn, so that none waits in the processor's cache."""


def smol_base(layers: int) -> PreTrainedModel:
    """SmolLM2-135M's shape, random weights."""
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=VOCABULARY,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def models_of(given: argparse.Namespace) -> dict[str, MaskModel]:
    """A model for every choice of LoRA, all on one base."""
    base, models = smol_base(given.layers), {}
    for rank, targets in product(given.ranks, given.targets):
        config = MTPConfig(num_masks=4, rank=rank, lora_targets=tuple(targets.split("+")))
        models[f"rank {rank}, {targets}"] = MaskModel.from_base(base, config)
        models[f"rank {rank}, {targets}"].shortlist = given.shortlist
    return models


def steps(given: argparse.Namespace) -> dict[str, Any]:
    """Every choice of LoRA on plain and packed weights: seconds of steps, by entry of the menu."""
    models = models_of(given)
    rounds: dict[str, list[Costs]] = {}
    theirs = []
    for _ in range(given.rounds):
        for (label, model), pack in product(models.items(), ("off", "on")):
            model.packing.want(pack)
            rounds.setdefault(f"{label}, pack {pack}", []).append(measure(model, 1, given.context, given.seconds))
            model.detach_hooks()
            model.packing.unpack()
        theirs.append(transformers_seconds(model.model, given.context))
    return {"transformers": spread(theirs), "steps": {label: table(costs) for label, costs in rounds.items()}}


def transformers_seconds(base: PreTrainedModel, context: int) -> float:
    """Seconds of a token of transformers' own greedy `generate`, the prompt's share taken off."""
    ids = torch.randint(VOCABULARY, (1, context))

    def seconds(tokens: int) -> float:
        started = perf_counter()
        base.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, pad_token_id=0)
        return perf_counter() - started

    seconds(2)
    return (seconds(1 + TOKENS) - seconds(1)) / TOKENS


def table(rounds: Sequence[Costs]) -> dict[str, Any]:
    """Medians and minima of every entry, and its ratio to a plain step of the same round."""
    return {
        entry.label: {
            "rows": cost.rows,
            "drafted": spread([costs[entry].drafted for costs in rounds]),
            "undrafted": spread([costs[entry].undrafted for costs in rounds]),
            "times_plain": spread([costs[entry].drafted / costs[PLAIN].drafted for costs in rounds]),
            "least_over_least": min(c[entry].drafted for c in rounds) / min(c[PLAIN].drafted for c in rounds),
        }
        for entry, cost in rounds[0].items()
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


@torch.no_grad()
def products(rounds: int) -> list[dict[str, Any]]:
    """Microseconds of a product with plain weights, and with weights packed for some number of rows."""
    results = []
    for inputs, outputs in SHAPES:
        count = max(2, OUT_OF_CACHE // (4 * inputs * outputs))
        plain = [torch.randn(outputs, inputs) for _ in range(count)]
        packed = {hint: [packed_linears.pack(weight, hint) for weight in plain] for hint in HINTS}
        for rows in ROWS:
            states = torch.randn(1, rows, inputs)
            found = {"plain": seconds_of(linear, states, plain, rounds)} | {
                f"packed for {hint}": seconds_of(packed_linears.product, states, some, rounds)
                for hint, some in packed.items()
            }
            results.append({"inputs": inputs, "outputs": outputs, "rows": rows} | found)
    return results


def seconds_of(
    multiply: Callable[[Tensor, Tensor, None], Tensor], states: Tensor, weights: Sequence[Tensor], rounds: int
) -> dict[str, float]:
    """Microseconds of one product, over all weights in turn."""
    taken = []
    for _ in range(1 + rounds):
        started = perf_counter()
        for weight in weights:
            multiply(states, weight, None)
        taken.append(1e6 * (perf_counter() - started) / len(weights))
    return spread(taken[1:])


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", action="store_true", help="single products instead of steps")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of one measurement of one choice")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--ranks", type=int, nargs="+", default=[16])
    parser.add_argument("--targets", nargs="+", default=["all"], help="lora_targets, several joined by +")
    parser.add_argument("--shortlist", type=int, default=0)
    parser.add_argument("--context", type=int, default=128)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = {"products": products(given.rounds)} if given.products else steps(given)
    print(json.dumps(found | {"provenance": provenance(**vars(given))}, indent=1))


if __name__ == "__main__":
    main()
