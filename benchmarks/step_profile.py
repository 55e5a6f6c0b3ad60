"""Where the time of a decode step goes: kernels by kind, and the host. Random weights cost what trained ones do.

CPU seconds of one thread, so that other programs on the machine count little; each figure is the median of some steps.
The host's share is measured on a model of as many layers whose matrices are so narrow that kernels take next to no
time: what is left of its step is Python, transformers and torch's own calls. Prints the table of
docs/experiments/seconds.md.

    python benchmarks/step_profile.py --out benchmarks/results/seconds/step-profile.json
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from foresay.decoding.config import DecodeConfig
from foresay.decoding.generate import prepare
from foresay.decoding.live import LiveSequence
from foresay.decoding.planning.plan import PendingRows
from foresay.decoding.planning.planner import Entry
from foresay.decoding.sampling.chooser import Chooser, Drafts, Greedy, Sampled
from foresay.decoding.sampling.logits_processors import Processing
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.session import Session
from foresay.foundation.provenance import provenance
from foresay.models.config import MTPConfig
from foresay.models.masks.model import MaskModel

LAYERS = 30
ENTRIES = (Entry("plain"), Entry("linear", 4), Entry("quadratic", 2), Entry("quadratic", 3))
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm", "mkldnn"),
    "attention": ("aten::_scaled_dot_product",),
}
"""By how operators' names begin; the others are small kernels."""
ROOM = 12


@dataclass(frozen=True)
class Width:
    """How wide a model is."""

    hidden: int
    inner: int
    heads: tuple[int, int]
    vocabulary: int

    def model(self) -> MaskModel:
        """A random Llama of this width with a random adapter, opened as `generate` opens one."""
        torch.manual_seed(0)
        config = LlamaConfig(
            num_hidden_layers=LAYERS,
            hidden_size=self.hidden,
            intermediate_size=self.inner,
            num_attention_heads=self.heads[0],
            num_key_value_heads=self.heads[1],
            vocab_size=self.vocabulary,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        )
        model = MaskModel.from_base(LlamaForCausalLM(config), MTPConfig(num_masks=4, rank=16))
        model.packing.want("on")
        prepare(model, DecodeConfig())
        return model


WIDTHS = {"SmolLM2-135M's": Width(576, 1536, (9, 3), 49152), "next to none": Width(36, 48, (9, 3), 64)}
CHOOSERS: dict[str, Callable[[int], Chooser]] = {
    "greedy": lambda sequences: Greedy(),
    "sampled": lambda sequences: Sampled(SeededNumbers(0, range(sequences)), Processing()),
}


Measured = Callable[[Callable[[], object]], Any]


def steps(session: Session, entry: Entry, context: int, measured: Measured) -> list[Any]:
    """What `measured` gives for steps that verify all drafts of the entry, one after the other."""
    sequences, found = len(session.live), []
    session.fixed = entry
    for _ in range(ROOM):
        session.live = [LiveSequence(place, PendingRows(context, 1, 0), ROOM, []) for place in range(sequences)]
        session.pending = Drafts(session.pending.tokens.new_zeros(sequences, 1))
        session.step()
        found.append(measured(session.step))
    return found[2:]


def cpu_milliseconds(step: Callable[[], object]) -> float:
    """Of a call, on this thread."""
    started = time.thread_time()
    step()
    return 1e3 * (time.thread_time() - started)


def by_kind(step: Callable[[], object]) -> tuple[dict[str, float], int]:
    """Milliseconds of a call's operators, by kind, and how many it calls."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    found, calls = dict.fromkeys([*KINDS, "small kernels"], 0.0), 0
    for event in seen.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.startswith(names)), "small kernels")
        found[kind] += event.self_cpu_time_total / 1e3
        calls += event.count
    return found, calls


def measure(batch: int, context: int, chooser: str) -> list[dict[str, Any]]:
    """A row for each entry."""
    sessions = {}
    for name, width in WIDTHS.items():
        config = DecodeConfig(layout="planned", max_new_tokens=ROOM, ignore_stop=True)
        sessions[name] = Session(width.model(), [[0] * context] * batch, config, CHOOSERS[chooser](batch))
    rows = []
    for entry in ENTRIES:
        wide, narrow = sessions.values()
        whole = statistics.median(steps(wide, entry, context, cpu_milliseconds))
        host = statistics.median(steps(narrow, entry, context, cpu_milliseconds))
        kinds, calls = steps(wide, entry, context, by_kind)[-1]
        rows.append(
            {
                **{"entry": entry.label, "batch": batch, "context": context, "chooser": chooser},
                **{"step_ms": whole, "host_ms": host, "operator_calls": calls, "kinds_ms": kinds},
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    columns = ("step", "batch", "chosen", "CPU ms", "x plain", *rows[0]["kinds_ms"], "operator calls", "host, ms")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    plain = 1.0
    for row in rows:
        plain = row["step_ms"] if row["entry"] == "plain" else plain
        total = sum(row["kinds_ms"].values())
        shares = [f"{value / total:.0%}" for value in row["kinds_ms"].values()]
        cells = [
            *(row["entry"], str(row["batch"]), row["chooser"], f"{row['step_ms']:.0f}"),
            *(f"{row['step_ms'] / plain:.2f}", *shares, f"{row['operator_calls']:,}", f"{row['host_ms']:.0f}"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    cases = ((1, "greedy"), (4, "greedy"), (1, "sampled"))
    rows = [row for batch, chooser in cases for row in measure(batch, given.context, chooser)]
    print(table(rows))
    if given.out is not None:
        facts = {"provenance": provenance(context=given.context), "rows": rows}
        given.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
