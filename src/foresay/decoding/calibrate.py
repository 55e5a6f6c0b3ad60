"""What a step costs on this machine: whole steps of every entry of the menu, measured once and remembered."""

import hashlib
import json
import os
import platform
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import torch

from foresay.cache_folder import cache_folder
from foresay.config import DecodeConfig
from foresay.decoding.planner import MENU, Acceptance, Cost, Costs, Entry, Planner
from foresay.decoding.session import Session
from foresay.modelling.model import MaskModel

STEPS = 16
"""Steps measured for each entry, after a few that are not."""
WARM_UP = 3
UNKNOWN = 0.5
"""Conditional acceptance assumed where training left none: worth a try, and soon corrected."""
CONTEXTS = (128, 512, 2048, 8192)
"""Context lengths that are measured; a request takes the next larger one."""


def planner_for(model: MaskModel, batch_size: int, length: int, masks: int = 0) -> Planner:
    """A planner for a batch of prompts of at most `length` tokens, with at most `masks` masks (0: as trained)."""
    most = masks or model.config.num_masks
    costs = {entry: cost for entry, cost in costs_for(model, batch_size, length).items() if entry.masks <= most}
    known = model.acceptance or tuple(UNKNOWN**place for place in range(1, model.config.num_masks + 1))
    return Planner(costs, Acceptance(known[:most]))


def costs_for(model: MaskModel, batch_size: int, length: int, anew: bool = False) -> Costs:
    """Seconds of a step for each entry, at this batch size and about this context length.

    Read from the cache folder (`FORESAY_CACHE`, else `~/.cache/foresay`) when measured before on this machine with the
    same model, dtype and number of threads; `anew` measures again.
    """
    longest = model.base.limits[0] - STEPS * (model.config.num_masks + 1) - WARM_UP - 1
    context = min(next((c for c in CONTEXTS if c >= length), CONTEXTS[-1]), max(longest, 1))
    batch = 1 << max(batch_size - 1, 0).bit_length()
    path = cache_folder() / f"costs-{_machine(model)}-{batch}-{context}.json"
    if path.is_file() and not anew:
        return _read(path)
    measured = {entry: measure(model, entry, batch, context) for entry in menu_of(model)}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps([asdict(entry) | asdict(cost) for entry, cost in measured.items()]))
    fresh.rename(path)
    return measured


def menu_of(model: MaskModel) -> list[Entry]:
    """The entries that the adapter has masks for."""
    return [entry for entry in MENU if entry.masks <= model.config.num_masks]


def measure(model: MaskModel, entry: Entry, batch_size: int, context: int) -> Cost:
    """Median seconds of a step with drafts and of one without, over real steps of a session."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(model.base.vocabulary, (batch_size, context), generator=generator).tolist()
    room = (STEPS + WARM_UP + 1) * (entry.masks + 1)
    config = DecodeConfig(layout=entry.layout, masks=entry.masks, max_new_tokens=room, ignore_stop=True)
    session = Session(model, prompts, config)
    session.step()
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for step in range(STEPS + WARM_UP):
        drafted = any(live.row.drafted for live in session.live)
        started = time.perf_counter()
        session.step()
        if step >= WARM_UP:
            seconds[drafted].append(time.perf_counter() - started)
    every = seconds[True] + seconds[False]
    return Cost(*(statistics.median(seconds[kind] or every) for kind in (True, False)))


def _machine(model: MaskModel) -> str:
    device = torch.cuda.get_device_name() if model.base.device.type == "cuda" else platform.processor()
    facts = (
        platform.node(),
        device,
        os.cpu_count(),
        torch.get_num_threads(),
        torch.__version__,
        str(model.base.dtype),
        model.base.config.to_json_string(),
        asdict(model.config),
        [asdict(entry) for entry in MENU],
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _read(path: Path) -> Costs:
    rows = json.loads(path.read_text())
    return {Entry(row["layout"], row["masks"]): Cost(row["drafted"], row["undrafted"]) for row in rows}
