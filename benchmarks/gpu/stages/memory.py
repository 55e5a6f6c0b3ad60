"""One training step in two passes against the packed form, at sequence 2,048: seconds and peak memory.

Every token but the last is an anchor of 8 masks. The packed form is that of `benchmarks/one_pass.py`, no straw man: as
it is, and with every layer recomputed in the backward pass. What runs out of memory is said so; where the packed form
does, both are measured once more with fewer anchors. `nf4` is the real base quantised, where bitsandbytes is there.
"""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from bases import LLAMA_1B, LLAMA_8B, REAL_RANK, random_llama, real_base
from card import fitting, free_memory, spread
from job import Deadline, Job, Record, Skipped

from foresay import MTPConfig, MultiTokenModel
from foresay.foundation.machine import now, peak_bytes, restart_peak
from foresay.models.config import LoadConfig
from foresay.models.masks.model import MaskModel
from foresay.training.objectives.two_pass import two_pass
from one_pass import LOSSES, Cell, packed, random_batch

TWO, PACKED, RECOMPUTED = "two passes", "packed", "packed, recomputed"
LENGTH, FEWER_ANCHORS, CHUNK, STEPS = 2048, 256, 64, 2


def run(job: Job, record: Record, deadline: Deadline) -> None:
    """The smaller shape first."""
    length, fewer = (48, 8) if job.dry_run else (LENGTH, FEWER_ANCHORS)
    for shape in (LLAMA_1B, LLAMA_8B):
        model = random_llama(job, shape).mask_model
        model.adapter.float()  # as it trains
        found = {form: step(model, record, deadline, shape, Cell(form, length, chunk=CHUNK)) for form in (TWO, PACKED)}
        if not found[PACKED]:
            few = Cell(PACKED, length, anchors=fewer, chunk=CHUNK)
            found = {form: step(model, record, deadline, shape, replace(few, form=form)) for form in (TWO, PACKED)}
        step(model, record, deadline, shape, Cell(RECOMPUTED, length, chunk=CHUNK))
        if all(found.values()):
            less, faster = (found[PACKED][name] / found[TWO][name] for name in ("peak_bytes", "median_seconds"))
            record.say(f"{shape}, {length} tokens: two passes take {less:.1f}x less memory, {faster:.1f}x less time")
        del model
        free_memory()
    quantised(job, record, deadline, length)


def step(model: MaskModel, record: Record, deadline: Deadline, base: str, cell: Cell) -> dict[str, Any]:
    """Seconds and peak of training steps of one form; empty where it was not measured."""
    what = f"{base}, {cell.form}, {cell.anchors or 'all'} anchors"
    if deadline.over:
        record.leave_out(what, "the time was over")
        return {}
    found: dict[str, Any] = {}
    with fitting(record, what):
        found = measured(model, cell)
        record.add(base=base, form=cell.form, length=cell.length, anchors=cell.anchors or cell.length - 1, **found)
    model.adapter.zero_grad(set_to_none=True)
    return found


def measured(model: MaskModel, cell: Cell) -> dict[str, Any]:
    """A step that is not timed, then some that are."""
    batch, device = random_batch(cell, model), model.base.device
    if cell.form == RECOMPUTED:
        model.model.gradient_checkpointing_enable({"use_reentrant": False})
        model.model.train()
    seconds = []
    try:
        known = restart_peak(device)
        for _ in range(STEPS + 1):
            model.adapter.zero_grad(set_to_none=True)
            began = now(device)
            _ = two_pass(model, batch, LOSSES, cell.chunk) if cell.form == TWO else packed(model, batch)
            seconds.append(now(device) - began)
    finally:
        if cell.form == RECOMPUTED:
            model.model.gradient_checkpointing_disable()
            model.model.eval()
    timed = spread(seconds[1:])
    return {"seconds": timed, "median_seconds": timed["median"], "peak_bytes": peak_bytes(device) if known else None}


def quantised(job: Job, record: Record, deadline: Deadline, length: int) -> None:
    """Two passes on the real base, as it comes and in nf4."""
    if find_spec("bitsandbytes") is None:
        record.leave_out("nf4", "bitsandbytes is not installed")
        return
    try:
        name = real_base(job)
    except Skipped as reason:
        record.leave_out("nf4", str(reason))
        return
    for quantize in ("none", "nf4"):
        loading = LoadConfig(quantize=quantize)  # type: ignore[arg-type]
        model = MultiTokenModel.from_base(name, MTPConfig(rank=REAL_RANK), dtype=job.dtype, loading=loading)  # type: ignore[arg-type]
        step(model.mask_model, record, deadline, f"{name}, {quantize}", Cell(TWO, length, chunk=CHUNK))
