"""What a training step costs against the number of heads n: seconds per token and peak memory, head by head (the
paper's order) beside the plain sum, which holds the logits of all heads at once. Layers are matched: heads take theirs
from the trunk. The model has random weights and tokens, which cost the same.

    python benchmarks/heads_cost.py > heads-cost.json
"""

import argparse
import json
import statistics
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from foresay.foundation.machine import now, peak_bytes, restart_peak
from foresay.foundation.provenance import provenance
from foresay.models.base.untrained import ordinary_layers
from foresay.models.config import HeadsConfig
from foresay.models.heads.model import HeadsModel
from foresay.training.config import PretrainConfig
from foresay.training.loop.distributed import ALONE
from foresay.training.objectives.heads import HeadsObjective
from foresay.training.objectives.losses import cross_entropy


def model_of(given: argparse.Namespace, heads: HeadsConfig) -> HeadsModel:
    """A Llama with `heads`, to be trained."""
    config = LlamaConfig(
        num_hidden_layers=ordinary_layers(given.layers, heads, added=False),
        hidden_size=given.width,
        intermediate_size=11 * given.width // 4,
        num_attention_heads=given.width // 64,
        num_key_value_heads=given.width // 64,
        vocab_size=given.vocabulary,
        max_position_embeddings=given.length,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to("cuda" if torch.cuda.is_available() else "cpu")
    return HeadsModel.from_base(model, heads).requires_grad_(True)


def plain_sum(model: HeadsModel, ids: Tensor) -> None:
    """All heads forward, one loss, one backward."""
    points, call = model.points(ids, cut=False)
    states = {point.head: point.made for point in points} | dict(model.branches(points[0].made, call))
    total = ids.new_zeros((), dtype=torch.float32)
    for head in range(1, model.config.heads + 1):
        logits = model.logits(head, model.tail(states[head][:, :-head])).flatten(0, 1)
        total = total + cross_entropy(logits, ids[:, head:].flatten()).mean()
    total.backward()


def measure(step: Callable[[], object], model: HeadsModel, repeats: int) -> dict[str, object]:
    """Seconds of some steps after a warm-up, and the peak of memory while they ran."""
    device = model.base.device
    step()
    measurable = restart_peak(device)
    seconds = []
    for _ in range(repeats):
        started = now(device)
        step()
        seconds.append(now(device) - started)
        model.zero_grad(set_to_none=False)
    return {
        "seconds": seconds,
        "median": statistics.median(seconds),
        "peak": peak_bytes(device) if measurable else None,
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args()
    results, alone = [], 0.0
    for heads in (1, 2, 4, 8):
        model = model_of(given, HeadsConfig(heads=heads))
        ids = torch.randint(given.vocabulary, (given.rows, given.length)).to(model.base.device)
        config = PretrainConfig(length=given.length, batch_tokens=ids.numel(), dtype=given.dtype)
        objective = HeadsObjective(model, ids.int(), config)

        def summed(model: HeadsModel = model, ids: Tensor = ids, objective: HeadsObjective = objective) -> None:
            with objective.autocast():
                plain_sum(model, ids)

        ways = {"head by head": lambda o=objective, i=ids: o.step(i, 1, ALONE), "plain sum": summed}  # type: ignore[misc]
        for name, step in ways.items():
            found = measure(step, model, given.repeats)
            alone = alone or float(found["median"])  # type: ignore[arg-type]
            results.append({"heads": heads, "order": name, **found, "times_one_head": found["median"] / alone})  # type: ignore[operator]
    print(json.dumps({"results": results, "provenance": provenance(**vars(given))}, indent=1))


if __name__ == "__main__":
    main()
