"""The files that costs of steps are kept in, each under a fingerprint of all that they depend on."""

import json
import math
import platform
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from foresay.decoding.config import DecodeConfig
from foresay.decoding.planning.planner import HEADS_MENU, MENU, PLAIN, Cost, Costs, Entry
from foresay.foundation.files import cache_folder, put
from foresay.foundation.hashes import short_hash
from foresay.foundation.machine import machine
from foresay.models.config import HeadsConfig
from foresay.models.drafting import DraftingModel

METHOD = 3
"""Counts the ways in which steps have been measured: files made in another way are not read."""

UNKEPT: dict[Path, Costs] = {}
"""What could not be written, for as long as the process lives."""


def menu_of(model: DraftingModel) -> list[Entry]:
    """The entries that there are masks, or heads, for."""
    menu = HEADS_MENU if isinstance(model.config, HeadsConfig) else MENU
    return [entry for entry in menu if entry.masks <= model.config.drafts]


def place_of(model: DraftingModel, batch_size: int, context: int) -> Path:
    """File of the costs; its name holds all that they depend on."""
    packed = "packed" if model.packing.packs else False
    facts = (
        METHOD,
        platform.node(),
        machine(),
        model.base.device.type,
        torch.__version__,
        transformers.__version__,
        str(model.base.dtype),
        model.base.attention,
        model.recorder is not None,
        ("compiled layers", packed) if model.compiles else packed,
        model.shortlist if model.shortlist is not None else DecodeConfig().shortlist_size(model.base.vocabulary),
        model.base.config.to_json_string(),
        asdict(model.config),
        [asdict(entry) for entry in menu_of(model)],
    )
    return cache_folder() / f"costs-{short_hash(repr(facts))}-{batch_size}-{context}.json"


def keep(path: Path, costs: Costs) -> None:
    """Write the file, whole or not at all; where nothing can be written, warn and remember it in this process."""
    rows = [{"entry": asdict(entry), "cost": asdict(cost)} for entry, cost in costs.items()]
    try:
        put(path, json.dumps(rows))
        UNKEPT.pop(path, None)
    except OSError as error:
        UNKEPT[path] = costs
        warnings.warn(
            f"what steps cost was measured and cannot be kept ({error}), so the next process will measure it again; "
            "point FORESAY_CACHE to a folder that can be written",
            stacklevel=2,
        )


def read(path: Path) -> Costs | None:
    """The costs in the file; None where there is none, or one that nobody can plan with."""
    if path in UNKEPT:
        return UNKEPT[path]
    try:
        rows = json.loads(path.read_text())
        costs = {Entry(**row["entry"]): Cost(**row["cost"]) for row in rows}
        sound = all(
            cost.rows >= 1 and 0 < seconds < math.inf
            for cost in costs.values()
            for seconds in (cost.drafted, cost.undrafted)
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return costs if sound and PLAIN in costs and costs.keys() <= {*MENU, *HEADS_MENU} else None
