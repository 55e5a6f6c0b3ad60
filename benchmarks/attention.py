"""What attention of a decode step costs, in three forms: transformers' own (keys and values copied for every query of a
group), ours (grouped queries read them where they lie) and ours in two parts (what every row sees without a mask, the
rest with a small one, merged by their log-sum-exp).

CPU seconds of one thread, so that other programs on the machine count little; on CUDA seconds of the device. The forms
take turns and the least of each counts; ratios are to transformers' own. Random numbers, which cost the same.

    python benchmarks/attention.py > attention.json
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from foresay.foundation.provenance import provenance
from foresay.models.base import slot_attention

SHAPES = {"SmolLM2-135M": (3, 3, 64), "Llama-3.1-8B": (8, 4, 128)}
"""Heads of keys, queries for each, width."""
MOST = 2**26
"""Numbers in a cache of keys; larger ones are left out on a CPU."""
Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One call: `rows` of each of `batch` sequences, the last slots of `slots` their own."""

    base: str
    batch: int
    slots: int
    rows: int

    def tensors(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query, keys and values in a longer cache, mask."""
        heads, groups, width = SHAPES[self.base]
        query = torch.randn(self.batch, heads * groups, self.rows, width, device=device, dtype=dtype)
        stored = torch.randn(2, self.batch, heads, self.slots + 256, width, device=device, dtype=dtype)
        mask = torch.ones(self.batch, 1, self.rows, self.slots, dtype=torch.bool, device=device)
        mask[..., self.slots - self.rows :] = torch.ones(self.rows, self.rows, device=device).tril().bool()
        return query, stored[0, :, :, : self.slots], stored[1, :, :, : self.slots], mask


def forms(case: Case) -> dict[str, Attend]:
    """The three, for a case."""
    layer = nn.Module()
    layer.num_key_value_groups = SHAPES[case.base][1]
    shared = case.slots - case.rows
    return {
        "transformers": lambda *tensors: ALL_ATTENTION_FUNCTIONS["sdpa"](layer, *tensors)[0],
        "grouped": lambda *tensors: slot_attention.attend(layer, *tensors)[0],
        "two parts": lambda *tensors: slot_attention.attend_in_parts(*tensors, shared=shared),
    }


def least_microseconds(case: Case, device: torch.device, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Of each form."""
    tensors, found = case.tensors(device, dtype), dict[str, list[float]]()
    for number in range(rounds):
        for name, attend in forms(case).items():
            clock = time.process_time if device.type == "cpu" else time.perf_counter
            repeats = 3 if device.type == "cpu" else 50
            started = clock()
            for _ in range(repeats):
                attend(*tensors)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                found.setdefault(name, []).append(1e6 * (clock() - started) / repeats)
    return {name: min(some) for name, some in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--slots", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 5, 9, 25])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rows = []
    for base, (heads, _, width) in SHAPES.items():
        for case in [Case(base, b, s, r) for b in given.batches for s in given.slots for r in given.rows]:
            if device.type == "cpu" and case.batch * case.slots * heads * width > MOST // 8:
                continue
            found = least_microseconds(case, device, dtype, given.rounds)
            ratios = {name: found[name] / found["transformers"] for name in found}
            rows.append({**vars(case), "microseconds": found, "ratios": ratios})
    print(json.dumps({"provenance": provenance(**vars(given)), "device": device.type, "cases": rows}, indent=1))


if __name__ == "__main__":
    main()
