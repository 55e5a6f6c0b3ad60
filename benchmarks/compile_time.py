"""How long it takes to compile the decoder layers of a base for all steps of the planner's menu, and what that gives.

Two processes, one after the other, share a folder for what torch.compile keeps, which is empty at first: the second
finds there what the first compiled. Each opens the model, compiles, and runs every step of the menu. Processor seconds
(those of the C++ compiler included) count little of what else the machine does. With `--rounds` the second process also
times every step of the menu on one thread, compiled and not, in turns: its processor time. Prints tables.

    python benchmarks/compile_time.py --out benchmarks/results/seconds/smollm2-compile.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from foresay.decoding.config import DecodeConfig
from foresay.decoding.cost_files import menu_of
from foresay.decoding.generate import prepare
from foresay.decoding.planning.planner import Entry
from foresay.decoding.session import Session
from foresay.decoding.step_costs import lap
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel

CONTEXT = 128
"""Cached tokens before a step."""
ROOM = 16
"""Tokens that two steps may say."""
FOLDER = "TORCHINDUCTOR_CACHE_DIR"
"""Where torch.compile keeps what it made."""


def process(given: argparse.Namespace) -> dict[str, Any]:
    """What one process measures."""
    torch.set_num_threads(1)
    core = MultiTokenModel.from_pretrained(given.model, dtype=given.dtype)._core
    packed = core.packing.packs
    core.packing.pack()
    prepare(core, DecodeConfig())
    session = Session(core, [[0] * CONTEXT], DecodeConfig(layout="planned", max_new_tokens=ROOM, ignore_stop=True))
    entries = menu_of(core)
    taken = [spent(core.compile_steps), spent(lambda: [two_steps(session, entry) for entry in entries])]
    return {
        **{"packed": packed, "cases": torch._dynamo.utils.counters["stats"]["unique_graphs"]},
        **{"compiling": taken[0], "every_step": taken[1], "rounds": rounds(session, given.rounds)},
    }


def spent(work: Callable[[], object]) -> dict[str, float]:
    """Seconds by the clock, and of the processor, in this process and in those that it waited for."""
    began, before = time.perf_counter(), os.times()
    work()
    processor = sum(os.times()[:4]) - sum(before[:4])
    return {"seconds": time.perf_counter() - began, "processor_seconds": processor}


def two_steps(session: Session, entry: Entry) -> float:
    """Milliseconds of this thread for a step without drafts and the one that verifies those which it made."""
    session.fixed = entry
    started = time.thread_time()
    lap(session, 1, CONTEXT)
    return 1e3 * (time.thread_time() - started)


def rounds(session: Session, count: int) -> dict[str, dict[str, list[float]]]:
    """Of every entry what two steps take in each round, uncompiled and compiled."""
    found: dict[str, dict[str, list[float]]] = {}
    for entry, _, (name, wanted) in product(
        menu_of(session.model), range(count + 1), (("plain", False), ("compiled", True))
    ):
        session.model.compile_steps(wanted)
        found.setdefault(entry.label, {}).setdefault(name, []).append(two_steps(session, entry))
    return {label: {name: some[1:] for name, some in both.items()} for label, both in found.items()}


def processes(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Both processes, one after the other, on a folder that is empty at first."""
    with tempfile.TemporaryDirectory() as folder:
        surroundings = {**os.environ, FOLDER: folder}
        command = [sys.executable, __file__, "--one", *arguments]
        first = [*command, "--rounds", "0"]
        runs = [subprocess.run(one, env=surroundings, check=True, stdout=subprocess.PIPE) for one in (first, command)]
    return [json.loads(run.stdout.splitlines()[-1]) for run in runs]


def tables(found: Sequence[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = ["| process | compiling, s | of the processor | every step once, s | cases |", "|---|---|---|---|---|"]
    for name, one in zip(("first", "second"), found):
        compiling, steps = one["compiling"], one["every_step"]["seconds"]
        seconds = f"{compiling['seconds']:.1f} | {compiling['processor_seconds']:.1f} | {steps:.1f}"
        lines.append(f"| {name} | {seconds} | {one['cases']} |")
    lines += ["", "| two steps | CPU ms | compiled | ratio (least to most) |", "|---|---|---|---|"]
    for label, both in found[-1]["rounds"].items():
        ratios = [after / before for before, after in zip(both["plain"], both["compiled"])]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        medians = " | ".join(f"{statistics.median(both[name]):.1f}" for name in ("plain", "compiled"))
        lines.append(f"| {label} | {medians} | {spread} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", action="store_true", help="be one of the two processes")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(process(given)))
        return
    found = processes(sys.argv[1:])
    print(tables(found))
    if given.out is not None:
        settings = {key: value for key, value in vars(given).items() if key not in ("out", "one")}
        facts = {"provenance": provenance(**settings, context=CONTEXT), "processes": found}
        given.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
