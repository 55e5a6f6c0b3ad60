"""Whether the K/V that a server will hold fits what is free: it is allocated only when the first answer comes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from foresay.decoding.config import DecodeConfig
from foresay.decoding.session import Session
from foresay.foundation.errors import require
from foresay.models.drafting import DraftingModel

MEMINFO, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
GIB = 2**30


def check_room(model: DraftingModel, sequences: Mapping[DecodeConfig, int], tokens: int) -> None:
    """Raise ConfigError where so many sequences of so many tokens, by how they are decoded, would not fit."""
    free = free_bytes(model.base.device)
    needed = sum(kv_bytes(model, config, count, tokens) for config, count in sequences.items())
    require(
        free is None or needed <= free,
        f"K/V for {' + '.join(map(str, sequences.values()))} sequences of {tokens:,} tokens takes {needed / GIB:.1f} "
        f"GiB, and {(free or 0) / GIB:.1f} GiB are free; give a smaller --max-length or fewer --sequences",
    )


def kv_bytes(model: DraftingModel, config: DecodeConfig, sequences: int, tokens: int) -> int:
    """Bytes that an engine allocates, by what a prompt of one token took: no setting tells the shapes of every base."""
    layout = "quadratic" if config.layout == "planned" else config.layout
    session = Session(model, [(0,)], replace(config, layout=layout, max_new_tokens=1, graphs=False))
    session.step()
    layers = [layer for layer in session.cache.layers if layer.is_initialized]
    held: int = sum(stored.nbytes for layer in layers for stored in (layer.keys, layer.values))
    return held // session.cache.slots * (tokens + session.spare) * sequences


def free_bytes(device: torch.device) -> int | None:
    """Memory that may still be taken; None where the device does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not MEMINFO.is_file():
        return None
    [kibibytes] = [line.split()[1] for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:")]
    limits = (1024 * int(kibibytes), _left_to_container())
    return min(limit for limit in limits if limit is not None)


def _left_to_container() -> int | None:
    """What a limit leaves (cgroup v2), pages that the kernel would give back counted as free; None: no limit."""
    try:
        most, held = (CONTAINER.joinpath(f"memory.{name}").read_text().strip() for name in ("max", "current"))
        cached = dict(line.split() for line in CONTAINER.joinpath("memory.stat").read_text().splitlines())
        return None if most == "max" else max(int(most) - int(held) + int(cached["inactive_file"]), 0)
    except (OSError, ValueError, KeyError):
        return None
