"""The card: what it is, what it can do, and what a step must take on it at least."""

import gc
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from job import Job, Record

from foresay import MultiTokenModel
from foresay.foundation.machine import now

REPEATS = 10


@dataclass(frozen=True, slots=True)
class Rates:
    """What the card can do, measured."""

    bytes_per_second: float
    """Of a large copy, bytes read and written counted."""
    operations_per_second: float
    """Of a large product in the dtype of the bases."""

    @classmethod
    def measured(cls, job: Job) -> "Rates":
        """A copy of 2 GiB and a product of 8192 x 8192 x 8192, on random numbers."""
        device, dtype = torch.device(job.device), getattr(torch, job.dtype)
        size, width = (1 << 22, 256) if job.dry_run else (1 << 31, 8192)
        source, target = (torch.empty(size, dtype=torch.uint8, device=device).random_() for _ in range(2))
        one, other = (torch.randn(width, width, device=device).to(dtype) for _ in range(2))
        copying, multiplying = (
            median_seconds(device, work) for work in (lambda: target.copy_(source), lambda: one @ other)
        )
        return cls(2 * size / copying, 2 * width**3 / multiplying)


def median_seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """Of `work`, by synchronised clock, after a warm-up."""
    work()
    seconds = []
    for _ in range(REPEATS):
        began = now(device)
        work()
        seconds.append(now(device) - began)
    return statistics.median(seconds)


def least_milliseconds(
    model: MultiTokenModel, rates: Rates, drafts: bool, rows: int, batch: int, context: int
) -> dict[str, float]:
    """What a step takes at least: `bytes_ms` by what it must read, `products_ms` by what it must multiply.

    Weights of the base and, where it `drafts`, of the adapter once; the K/V of `context` tokens of every sequence once;
    a product with every weight for each of `rows` rows a sequence. An embedding that is no unembedding is not read.
    """
    core = model.mask_model
    head, embedding = core.base.head.weight, core.base.embedding.weight
    weights = [weight for weight in core.model.parameters() if weight is not embedding or head is embedding]
    own = list(core.added.parameters()) if drafts else []
    config = core.base.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = 2 * core.base.layers * config.num_key_value_heads * width * context * batch * head.element_size()
    moved = kept + sum(weight.numel() * weight.element_size() for weight in (*weights, *own))
    operations = 2 * sum(weight.numel() for weight in weights) * rows * batch
    return {
        "bytes": moved,
        "bytes_ms": 1e3 * moved / rates.bytes_per_second,
        "products_ms": 1e3 * operations / rates.operations_per_second,
    }


def described() -> dict[str, Any]:
    """The card, its driver and what torch was built for; empty without one."""
    if not torch.cuda.is_available():
        return {}
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = ""
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "driver": driver,
        "cuda": torch.version.cuda,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, least and most of some measurements, and how many they are."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "count": len(values)}


@contextmanager
def fitting(record: Record, what: str) -> Iterator[None]:
    """Leave `what` out where it runs out of memory; give back what it held."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        record.leave_out(what, str(error).split(". GPU")[0][:200])
    finally:
        free_memory()


def free_memory() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
