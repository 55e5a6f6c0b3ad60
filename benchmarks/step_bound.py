"""The least time that a step can take on this machine, by memory and by arithmetic, beside what it takes.

A step reads every weight of the base once, and with masks those of the adapter, and multiplies each row by them. How
fast memory is read is measured by adding up a tensor that no cache holds, how fast products are by large square
matrices, both with all threads and in the run that times the steps; the fastest round counts. Attention, norms and what
Python does are not in the bound. Prints a table.

    python benchmarks/step_bound.py smollm2 --out benchmarks/results/seconds/step-bound.json
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import nn

from foresay.decoding.config import DecodeConfig
from foresay.decoding.step_costs import Costs, measure
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel

OUT_OF_CACHE = 2**28
"""Bytes that are added up."""
SIDE = 2048
"""Rows and columns of the matrices."""
COST_SECONDS = 10.0
"""Of one measurement of all steps."""


def seconds(work: Callable[[], object]) -> float:
    """Of a call."""
    began = perf_counter()
    work()
    return perf_counter() - began


def weights_of(module: nn.Module) -> int:
    """Numbers that are read once a step: embeddings are looked up, but a tied one is the unembedding too."""
    return sum(weight.numel() for weight in module.parameters())


def rows_of(model: MultiTokenModel, context: int, rounds: int) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """What the machine can do, and a row for each step of the menu."""
    core = model.mask_model
    read, square = torch.ones(OUT_OF_CACHE // 4), torch.rand(SIDE, SIDE)
    reads, products, costs = list[float](), list[float](), list[Costs]()
    for _ in range(rounds):
        reads.append(min(seconds(read.sum) for _ in range(3)))
        products.append(min(seconds(lambda: square @ square) for _ in range(3)))
        costs.append(measure(core, 1, context, COST_SECONDS))
    can = {"bytes_per_second": OUT_OF_CACHE / min(reads), "flop_per_second": 2 * SIDE**3 / min(products)}
    base, added = weights_of(core.model), weights_of(core.adapter)
    found = []
    for entry, cost in costs[0].items():
        masks = cost.rows if entry.masks else 0
        memory = 4 * (base + (added if masks else 0)) / can["bytes_per_second"]
        # LoRA acts on mask rows alone; to count it for every row is a little too much.
        arithmetic = 2 * (base * cost.rows + added * masks) / can["flop_per_second"]
        taken = statistics.median(one[entry].drafted for one in costs)
        bound = {"memory_ms": 1e3 * memory, "arithmetic_ms": 1e3 * arithmetic}
        times = {"step_ms": 1e3 * taken, "times_bound": taken / max(memory, arithmetic)}
        found.append({"step": entry.label, "rows": cost.rows, **bound, **times})
    return can, found


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| step | rows | memory, ms | arithmetic, ms | step, ms | step over the larger |", "|---" * 6 + "|"]
    for row in rows:
        own = " | ".join(f"{row[name]:.1f}" for name in ("memory_ms", "arithmetic_ms", "step_ms"))
        lines.append(f"| {row['step']} | {row['rows']} | {own} | {row['times_bound']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    model = MultiTokenModel.from_pretrained(given.model, dtype="float32")
    model.prepare(DecodeConfig())
    can, rows = rows_of(model, given.context, given.rounds)
    print(f"memory {can['bytes_per_second'] / 1e9:.1f} GB/s, products {can['flop_per_second'] / 1e9:.0f} GFLOP/s\n")
    print(table(rows))
    if given.out is not None:
        asked = provenance(model=given.model, context=given.context, rounds=given.rounds)
        given.out.write_text(json.dumps({"machine_can": can, "rows": rows, "provenance": asked}, indent=1) + "\n")


if __name__ == "__main__":
    main()
