"""Training throughput against plain LoRA fine-tuning with PEFT, side by side: real tokens a second, as a ratio.

Same base (the embedded one, or `--base`), rank, linears, batch of full sequences, optimizer and clipping; both take
turns, and the ratio is that of neighbours. Plain fine-tuning learns the next token at every row; ours asks the frozen
base about every row and learns k tokens after the anchors, so that its cost depends on them.

    python benchmarks/throughput.py > benchmarks/results/training/throughput.json
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from foresay.foundation.provenance import provenance
from foresay.models.base.load import load_base
from foresay.models.config import MTPConfig
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.two_pass import two_pass

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SEQUENCES, LENGTH, ROUNDS = TrainConfig().sequences, 512, 5
"""A step of `TrainConfig`'s, as long as its longest sequences."""


def stepper(parameters: list[nn.Parameter], backward: Callable[[], Any]) -> Callable[[], float]:
    """A training step that says how many seconds it took."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)

    def step() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        started = time.perf_counter()
        backward()
        nn.utils.clip_grad_norm_(parameters, 1.0).item()
        optimizer.step()
        optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return step


def plain(base: str, rank: int, ids: Tensor) -> Callable[[], float]:
    """Fine-tuning as PEFT does it."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=LINEARS, task_type="CAUSAL_LM")
    model = get_peft_model(load_base(base, "float32"), config).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    ids = ids.to(model.device)

    def backward() -> None:
        model(input_ids=ids, labels=ids).loss.backward()

    return stepper(trained, backward)


def ours(base: str, rank: int, ids: Tensor, anchors: int) -> Callable[[], float]:
    """A step of ours with so many anchors a sequence."""
    model = MaskModel.from_base(load_base(base, "float32"), MTPConfig(rank=rank))
    carries = torch.ones(ids.shape, dtype=torch.bool)
    carries[:, -1] = False
    drawn = [torch.randperm(ids.shape[1] - 1)[:anchors].sort().values for _ in ids]
    batch = Batch(*(tensor.to(model.base.device) for tensor in (ids, carries, torch.stack(drawn))))
    return stepper(list(model.adapter.parameters()), lambda: two_pass(model, batch, LossConfig()))


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="nano")
    parser.add_argument("--rank", type=int, default=MTPConfig().rank)
    parser.add_argument("--anchors", type=int, nargs="+", default=[8, 24, 64])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    torch.manual_seed(0)
    ids = torch.randint(4096, (SEQUENCES, LENGTH))
    steps = {"plain LoRA": plain(given.base, given.rank, ids)}
    steps |= {f"{anchors} anchors": ours(given.base, given.rank, ids, anchors) for anchors in given.anchors}
    for step in steps.values():
        step()
    rounds = [{name: step() for name, step in steps.items()} for _ in range(given.rounds)]
    results = []
    for name in steps:
        ratios = [seconds["plain LoRA"] / seconds[name] for seconds in rounds]
        median = statistics.median(seconds[name] for seconds in rounds)
        results.append(
            {
                "step": name,
                "seconds": median,
                "tokens_per_second": ids.numel() / median,
                "times_plain": statistics.median(ratios),
                "least": min(ratios),
                "most": max(ratios),
            }
        )
    settings = vars(given) | {"sequences": SEQUENCES, "length": LENGTH, "masks": MTPConfig().num_masks}
    print(json.dumps({"results": results, "provenance": provenance(**settings)}, indent=1))


if __name__ == "__main__":
    main()
