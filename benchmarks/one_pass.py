"""Two passes against the paper's packed pass: seconds and peak memory of one training step, and memory by length.

The packed pass is no straw man: sdpa with a boolean mask, LoRA on mask rows alone, the same losses in the same chunks
of logits, no gradient for the base; once as it is and once with every layer recomputed in the backward pass. All forms
take the same batch with k = 8 masks after every token, and give the same gradients (`tests/laws/test_two_pass.py`).
The base is the embedded one, its stated context widened: past 1024 tokens it has learnt nothing and costs the same.
Every cell runs in a process of its own, in turns; memory on a CPU is the peak of that process's resident set.

    python benchmarks/one_pass.py > benchmarks/results/training/one-pass.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from foresay.foundation.machine import peak_bytes, restart_peak
from foresay.foundation.names import NANO
from foresay.foundation.provenance import provenance
from foresay.models.base.load import base_folder
from foresay.models.config import MTPConfig
from foresay.models.layout.call import Call
from foresay.models.layout.layout import Layout
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.loop.progress import Losses
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.losses import teach
from foresay.training.objectives.two_pass import Kept, TwoPassStep, count, mask_rows, two_pass

MASKS, RANK, CONTEXT = 8, 64, 8192
LOSSES = LossConfig()


@dataclass(frozen=True, slots=True)
class Cell:
    """One training step, many times."""

    form: str
    """`two passes`, `packed` or `packed, recomputed`."""
    length: int
    sequences: int = 1
    anchors: int = 0
    """Anchors a sequence; 0: every token that carries loss."""
    chunk: int = 32
    """Anchors of a sequence that go through the mask pass at once."""
    steps: int = 1
    """Timed, after one that is not."""


def widened() -> MaskModel:
    """The embedded base with room for long sequences, and a fresh adapter."""
    settings = {"max_position_embeddings": CONTEXT, "dtype": torch.float32}
    base = AutoModelForCausalLM.from_pretrained(base_folder(NANO), **settings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return MaskModel.from_base(base.to(device), MTPConfig(num_masks=MASKS, rank=RANK))


def random_batch(cell: Cell, model: MaskModel) -> Batch:
    """Tokens at random, all of which carry loss."""
    generator = torch.Generator().manual_seed(0)
    shape, device = (cell.sequences, cell.length), model.base.device
    ids = torch.randint(model.base.vocabulary, shape, generator=generator)
    carries = torch.ones(shape, dtype=torch.bool)
    carries[:, -1] = False
    drawn = [torch.randperm(cell.length - 1, generator=generator) for _ in range(cell.sequences)]
    anchors = torch.stack([places[: cell.anchors or None].sort().values for places in drawn])
    return Batch(ids.to(device), carries.to(device), anchors.to(device))


def packed(model: MaskModel, batch: Batch) -> Losses:
    """The step in one pass over real rows and all blocks of a single sequence."""
    [anchors], [ids] = batch.anchors.tolist(), batch.ids
    layout, embed = Layout.training(len(ids), tuple(anchors), MASKS), model.base.embedding
    call = Call(layout, ids.new_zeros(1))
    masks = model.adapter.mask_embeddings[layout.draw(ids.device).mask_indices]
    embeds = torch.cat((embed(ids), masks.to(model.base.dtype)))[None]
    model.attach_hooks()
    with model.gate.open(1, layout.rows, layout.real):
        trunk = model.model.get_decoder()
        output = trunk(
            inputs_embeds=embeds,
            attention_mask=call.visible(layout.rows),
            position_ids=call.positions(),
            use_cache=False,
        )
        return pay(model, batch, output.last_hidden_state)


def pay(model: MaskModel, batch: Batch, states: Tensor) -> Losses:
    """The losses of `states` (1, R + T, D), backward included."""
    real, base, counts = states[:, : batch.ids.shape[1]].detach(), model.base, count(batch, MASKS, LOSSES)
    taught = teach(base.unembed, base.vocabulary, real, batch.ids, counts.shares > 0)
    step = TwoPassStep(model, batch, LOSSES, Kept(None, real, taught), counts)
    return step.pay(mask_rows(batch, batch.anchors, MASKS, LOSSES), states[:, batch.ids.shape[1] :])


def run(cell: Cell) -> dict[str, Any]:
    """Seconds of every step and the peak over all of them, in this process."""
    model = widened()
    batch = random_batch(cell, model)
    if cell.form == "packed, recomputed":
        model.model.gradient_checkpointing_enable({"use_reentrant": False})
        model.model.train()
    before = peak_bytes(model.base.device)
    known = restart_peak(model.base.device)
    seconds, losses = [], Losses()
    for _ in range(cell.steps + 1):
        model.adapter.zero_grad(set_to_none=True)
        started, own = time.perf_counter(), time.process_time()
        losses = two_pass(model, batch, LOSSES, cell.chunk) if cell.form == "two passes" else packed(model, batch)
        seconds.append((time.perf_counter() - started, time.process_time() - own))
    config = model.base.config
    kept = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4 * batch.ids.numel()
    return {
        "seconds": [wall for wall, _ in seconds[1:]],
        "processor_seconds": [own for _, own in seconds[1:]],
        "peak_bytes": peak_bytes(model.base.device) if known else None,
        "before_bytes": before,
        "kept_bytes": kept if cell.form == "two passes" else 0,
        "loss": losses.total,
    }


def in_a_process(cell: Cell) -> dict[str, Any]:
    """Run the cell in a fresh process; the reason where it does not fit."""
    command = [sys.executable, __file__, "--cell", json.dumps(asdict(cell))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        found = {"failed": (done.stderr.strip().splitlines() or [f"killed ({done.returncode})"])[-1]}
    else:
        found = json.loads(done.stdout)
    print(cell, found, file=sys.stderr)
    return asdict(cell) | found


def together(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Repeats of a cell as one: every second, the largest peak."""
    whole = rounds[0] | {
        name: [s for one in rounds for s in one.get(name, ())] for name in ("seconds", "processor_seconds")
    }
    for name in ("seconds", "processor_seconds"):
        whole[f"median_{name}"] = statistics.median(whole[name]) if whole[name] else None
    whole["peak_bytes"] = max((one["peak_bytes"] for one in rounds if one.get("peak_bytes")), default=None)
    return whole


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="*", default=[512, 1024, 2048])
    parser.add_argument("--flat", type=int, nargs="*", default=[512, 1024, 2048, 4096])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cell:
        print(json.dumps(run(Cell(**json.loads(given.cell)))))
        return
    forms = ("two passes", "packed", "packed, recomputed")
    cells = [Cell(form, length) for length in given.lengths for form in forms]
    # 1,024 mask rows whatever the length.
    cells += [Cell("two passes", length, sequences=4, anchors=32, chunk=0) for length in given.flat]
    turns = [[in_a_process(cell) for cell in cells] for _ in range(given.rounds)]
    results = [together(list(rounds)) for rounds in zip(*turns)]
    settings = {"masks": MASKS, "rank": RANK, "context": CONTEXT, "rounds": given.rounds}
    print(json.dumps({"results": results, "provenance": provenance(**settings)}, indent=1))


if __name__ == "__main__":
    main()
