"""The files that costs of steps are kept in, each under a fingerprint of all that they depend on."""

import json
import math
import platform
import warnings
from dataclasses import asdict, dataclass
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

METHOD = 4
"""Counts the ways in which steps have been measured: files made in another way are not read."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Costs, and whether they can be relied on."""

    costs: Costs
    calm: bool = True
    """No other program took the processor meanwhile; else they are measured again at the next opportunity."""

    def beside(self, former: "Measured | None") -> "Measured":
        """What to plan by, where `former` was measured before.

        Calm figures. Of two disturbed measurements the lower ones: other programs only ever add to them.
        """
        if former is None or self.calm:
            return self
        if former.calm:
            return former
        costs = {**former.costs, **self.costs}
        both = former.costs.keys() & self.costs.keys()
        lower = {entry: _lower(former.costs[entry], self.costs[entry]) for entry in both}
        return Measured({**costs, **lower}, calm=False)


def _lower(one: Cost, other: Cost) -> Cost:
    drafted, undrafted = min(one.drafted, other.drafted), min(one.undrafted, other.undrafted)
    return Cost(drafted, undrafted, one.rows)


UNKEPT: dict[Path, Measured] = {}
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


def keep(path: Path, found: Measured) -> None:
    """Write the file, whole or not at all; where nothing can be written, warn and remember it in this process."""
    rows = [{"entry": asdict(entry), "cost": asdict(cost)} for entry, cost in found.costs.items()]
    try:
        put(path, json.dumps({"calm": found.calm, "rows": rows}))
        UNKEPT.pop(path, None)
    except OSError as error:
        UNKEPT[path] = found
        warnings.warn(
            f"what steps cost was measured and cannot be kept ({error}), so the next process will measure it again; "
            "point FORESAY_CACHE to a folder that can be written",
            stacklevel=2,
        )


def read(path: Path) -> Measured | None:
    """What is in the file; None where there is none, or one that nobody can plan with."""
    if path in UNKEPT:
        return UNKEPT[path]
    try:
        content = json.loads(path.read_text())
        found = Measured({Entry(**row["entry"]): Cost(**row["cost"]) for row in content["rows"]}, content["calm"])
        sound = all(
            cost.rows >= 1 and 0 < seconds < math.inf
            for cost in found.costs.values()
            for seconds in (cost.drafted, cost.undrafted)
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if sound and PLAIN in found.costs and found.costs.keys() <= {*MENU, *HEADS_MENU} else None
