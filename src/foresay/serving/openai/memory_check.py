"""Whether the K/V that a server will hold fits what is free: it is allocated only when the first answer comes."""

from collections.abc import Mapping
from pathlib import Path

import torch

from foresay.decoding.config import DecodeConfig
from foresay.decoding.prefix_cache import MIB
from foresay.foundation.errors import require
from foresay.model import MultiTokenModel

MEMINFO, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
GIB = 2**30


def check_room(
    model: MultiTokenModel, sequences: Mapping[DecodeConfig, int], tokens: int, prefix_cache: int = 0
) -> None:
    """Raise ConfigError where so many sequences of so many tokens, by how they are decoded, would not fit.

    `prefix_cache`: MiB that are kept between requests beside them.
    """
    free = free_bytes(model.base.device)
    kept = prefix_cache * MIB
    needed = kept + sum(model.kv_bytes(config, count, tokens) for config, count in sequences.items())
    beside = f" with a prefix cache of {kept / GIB:.1f} GiB" if kept else ""
    cure = " or --prefix-cache, or fewer --sequences" if kept else " or fewer --sequences"
    require(
        free is None or needed <= free,
        f"K/V for {' + '.join(map(str, sequences.values()))} sequences of {tokens:,} tokens{beside} takes "
        f"{needed / GIB:.1f} GiB, and {(free or 0) / GIB:.1f} GiB are free; give a smaller --max-length{cure}",
    )


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
