"""What a step costs, beside what it must take at least on this card (`card.least_milliseconds`); where the time goes.

A *lap* is a step without drafts and the step after it that verifies what the first one drafted, as the planner times
them. Its seconds are wall time with the device synchronised before and after, so that they hold what the host takes.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bases import LLAMA_1B, LLAMA_8B, REAL_RANK, random_llama, ready, real_base
from card import Rates, fitting, free_memory, least_milliseconds, spread
from job import Deadline, Job, Record, Skipped
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from foresay import DecodeConfig, MTPConfig, MultiTokenModel
from foresay.decoding.generate import prepare
from foresay.decoding.planning.planner import PLAIN, Cost, Entry
from foresay.decoding.session import Session
from foresay.decoding.step_costs import lap

CHAINS = (
    PLAIN,
    *(Entry("linear", masks) for masks in (2, 4, 8)),
    *(Entry("quadratic", masks) for masks in (1, 2, 3, 4, 8)),
)
TREE = Entry("tree", 4)
"""Of at most 16 drafts, four deep; a session has chains or a tree."""
PROFILED, PROFILED_LAPS, KERNELS = Entry("quadratic", 4), 5, 12
ROUNDS, LEAST_ROUNDS, WARM_UP = 12, 3, 2
"""Times that each entry is measured where there is time, and at least; laps before that."""
ROOM = 24
"""Slots after the context: more than two steps fill."""
GRAPHS, EAGER = "graphs", "eager"
"""How steps run: replayed as CUDA graphs, or launched kernel by kernel."""


@dataclass(frozen=True, slots=True)
class Cell:
    """All entries at one batch size, after so many cached tokens."""

    batch: int
    context: int
    seconds: float
    """At most, where each entry has its least rounds; warm-up not counted."""


CELLS = {
    LLAMA_8B: [(1, 512, 5), (8, 512, 4), (32, 512, 4), (1, 8192, 3), (8, 8192, 3), (32, 8192, 4)],
    "real": [(1, 512, 4), (8, 512, 3), (32, 512, 3), (1, 8192, 2), (8, 8192, 2), (32, 8192, 3)],
    LLAMA_1B: [(1, 512, 3), (8, 512, 2), (32, 512, 2)],
    "nano": [(1, 512, 2), (8, 512, 1)],
}
"""What is measured, the most valuable first; (32, 8192) at the 8B shape holds 34 GB of K/V."""
DRY_CELLS = {name: [(2, 32, 0.0)] for name in (LLAMA_8B, "nano")}


def run(job: Job, record: Record, deadline: Deadline) -> None:
    """Measure the card, then every cell of every model, until the time is over."""
    rates = Rates.measured(job)
    record.add(what="card", **asdict(rates))
    free_memory()
    record.say(f"{rates.bytes_per_second / 1e12:.2f} TB/s, {rates.operations_per_second / 1e12:.1f} TFLOP/s")
    for name, cells in (DRY_CELLS if job.dry_run else CELLS).items():
        if deadline.over:
            record.leave_out(name, "the time was over")
            continue
        try:
            model = opened(job, name)
        except Skipped as reason:
            record.leave_out(name, str(reason))
            continue
        Steps(job, record, deadline, rates, name, model).run([Cell(*cell) for cell in cells])
        del model
        free_memory()


def opened(job: Job, name: str) -> MultiTokenModel:
    """The model called `name`, with an adapter. Raises Skipped."""
    if name in (LLAMA_8B, LLAMA_1B):
        return random_llama(job, name)
    if name == "nano":
        return MultiTokenModel.from_pretrained("nano", dtype=job.dtype)
    return ready(MultiTokenModel.from_base(real_base(job), MTPConfig(rank=REAL_RANK), dtype=job.dtype))


@dataclass(slots=True)
class Steps:
    """One model's cells."""

    job: Job
    record: Record
    deadline: Deadline
    rates: Rates
    name: str
    model: MultiTokenModel

    def run(self, cells: list[Cell]) -> None:
        """Every cell with graphs, the first one without them too; its profile after it."""
        for cell in cells:
            for mode in (GRAPHS, EAGER) if cell is cells[0] else (GRAPHS,):
                what = f"{self.name}, batch {cell.batch}, context {cell.context}, {mode}"
                if self.deadline.over:
                    self.record.leave_out(what, "the time was over")
                    continue
                with fitting(self.record, what):
                    self.measure(cell, mode)
                    if cell is cells[0]:
                        self.profile(cell, mode)

    def measure(self, cell: Cell, mode: str) -> None:
        """Every entry, in turns."""
        laps = dict[Entry, list[Cost]]()
        for layout, entries in (("planned", CHAINS), ("tree", (TREE,))):
            for entry, cost in self.laps(layout, entries, cell, mode):
                laps.setdefault(entry, []).append(cost)
        rows = [self.row(entry, costs, cell, mode) for entry, costs in laps.items()]
        for row in rows:
            row["times_plain"] = row["milliseconds"]["median"] / rows[0]["milliseconds"]["median"]
        self.record.results += rows
        plain, times = rows[0], ", ".join(f"{row['entry']} {row['times_plain']:.2f}" for row in rows[1:])
        self.record.say(
            f"{self.name}, batch {cell.batch}, context {plain['context']}, {mode}: plain "
            f"{plain['milliseconds']['median']:.2f} ms, {plain['times_least']:.2f}x its least; x plain: {times}"
        )

    def laps(self, layout: str, entries: tuple[Entry, ...], cell: Cell, mode: str) -> Iterator[tuple[Entry, Cost]]:
        """Laps of the entries in turns, until each has all its rounds or the time is over."""
        session = self.session(layout, cell, mode)
        for entry in entries:
            for _ in range(WARM_UP):
                self.lap(session, entry, cell)
        if mode == GRAPHS and self.job.device == "cuda" and not self.model.mask_model.recordable:
            self.record.leave_out(f"{self.name}, {layout}, {mode}", "steps could not be recorded: they ran eagerly")
        end = time.monotonic() + cell.seconds * len(entries) / (len(CHAINS) + 1)
        for number in range(ROUNDS):
            if number >= LEAST_ROUNDS and (time.monotonic() >= end or self.deadline.over):
                break
            for entry in entries:
                yield entry, self.lap(session, entry, cell)

    def session(self, layout: str, cell: Cell, mode: str) -> Session:
        """Sequences whose steps are timed; nothing is prefilled, as a step costs the same on anything."""
        config = DecodeConfig(layout=layout, max_new_tokens=ROOM, ignore_stop=True, graphs=mode == GRAPHS)
        prepare(self.model.mask_model, config)
        return Session(self.model.mask_model, [[0] * self.context(cell)] * cell.batch, config)

    def lap(self, session: Session, entry: Entry, cell: Cell) -> Cost:
        """One lap of the entry."""
        session.fixed = entry
        return lap(session, cell.batch, self.context(cell))

    def context(self, cell: Cell) -> int:
        """The cell's, or what the base has room for."""
        return min(cell.context, self.model.base.limits[0] - ROOM)

    def row(self, entry: Entry, costs: list[Cost], cell: Cell, mode: str) -> dict[str, Any]:
        """The result of one entry."""
        drafted, undrafted = (
            spread([1e3 * s for s in some]) for some in zip(*((c.drafted, c.undrafted) for c in costs))
        )
        rows, context = costs[0].rows, self.context(cell)
        least = least_milliseconds(self.model, self.rates, entry != PLAIN, rows, cell.batch, context)
        return {
            **{"what": "step", "model": self.name, "mode": mode, "batch": cell.batch, "context": context},
            **{"entry": entry.label, "rows": rows, "milliseconds": drafted, "undrafted_milliseconds": undrafted},
            **least,
            "times_least": drafted["median"] / max(least["bytes_ms"], least["products_ms"]),
        }

    def profile(self, cell: Cell, mode: str) -> None:
        """The kernels that take most of a lap of `PROFILED`, and how long of it the device is busy."""
        session, on_card = self.session("planned", cell, mode), self.job.device == "cuda"
        for _ in range(WARM_UP):
            self.lap(session, PROFILED, cell)
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]) as seen:
            costs = [self.lap(session, PROFILED, cell) for _ in range(PROFILED_LAPS)]
        found = {event.key: (event.count, milliseconds(event, on_card)) for event in seen.key_averages()}
        busy = sum(taken for _, taken in found.values())
        top = sorted(found.items(), key=lambda item: -item[1][1])[:KERNELS]
        self.record.add(
            what="profile of laps, a step without drafts and one with",
            **{"model": self.name, "mode": mode, "entry": PROFILED.label, "batch": cell.batch},
            wall_ms=1e3 * sum(cost.drafted + cost.undrafted for cost in costs) / PROFILED_LAPS,
            busy_ms=busy / PROFILED_LAPS,
            kernels=[
                {
                    "kernel": key[:120],
                    "calls": calls / PROFILED_LAPS,
                    "ms": taken / PROFILED_LAPS,
                    "share": taken / busy,
                }
                for key, (calls, taken) in top
            ],
        )


def milliseconds(event: Any, on_card: bool) -> float:
    """Of a kernel on the card; on a CPU of an operator, without those that it calls."""
    if not on_card:
        return float(event.self_cpu_time_total) / 1e3
    return float(event.self_device_time_total) / 1e3 if event.device_type == DeviceType.CUDA else 0.0
