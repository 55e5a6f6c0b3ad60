"""The machine: its clock, peak memory, bfloat16 products and processor.

The clock is read after the device has done what it was given. What threads waited for the processor is read beside it:
of a time that other programs shared nothing can be learnt.
Peak memory, on CUDA: bytes of tensors on the device, the weights among them. On a CPU under Linux: the resident set of
the whole process, whose mark the kernel sets back when asked; Python, torch and what the allocator did not give back
are in it, so it says what a machine must have rather than what one decoder needs. Elsewhere it is not measured.
"""

import os
import platform
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

STATUS, MARKS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
THREADS = Path("/proc/self/task")
DISTURBED = 0.05
"""Share of a measured time for which threads may wait for the processor: more says that other programs ran."""
SET_BACK = "5"
"""Written to `MARKS`, it makes the peak of the resident set the present one."""
BFLOAT16_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16")
"""Instructions that multiply bfloat16, as torch names them: two of x86-64, one of ARM."""


def now(device: torch.device) -> float:
    """Seconds of a clock that never goes back, after all work of `device`."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def waited() -> float:
    """Seconds that this process's threads were ready to run while others ran, all together; 0 where nobody counts them.

    Linux does (`schedstat`). Two reads tell of the time between them, as long as no thread ended.
    """
    delays = 0
    for thread in THREADS.glob("*/schedstat"):
        with suppress(OSError):  # it ended
            delays += int(thread.read_text().split()[1])
    return delays / 1e9


class OtherPrograms:
    """Watches from now on whether others take the processor."""

    def __init__(self) -> None:
        self._before = waited()

    def disturbed(self, seconds: float) -> bool:
        """The `seconds` since then."""
        return waited() - self._before > DISTURBED * seconds


def restart_peak(device: torch.device) -> bool:
    """Forget the peak so far; false where that is impossible, and `peak_bytes` would tell of something else."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        MARKS.write_text(SET_BACK)
    except OSError:
        return False
    return device.type == "cpu"


def peak_bytes(device: torch.device) -> int:
    """The peak since `restart_peak`, where that was true."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    [kibibytes] = [line.split()[1] for line in STATUS.read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(kibibytes)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are computed in hardware; in software they take some ten times as long as float32's
    (docs/experiments/training.md).
    """
    return device.type != "cpu" or any(torch.cpu.get_capabilities().get(name, False) for name in BFLOAT16_PRODUCTS)


def in_software(dtype: str, device: torch.device) -> str:
    """A sentence for whoever asked for `dtype` where that is slow; else nothing."""
    if dtype != "bfloat16" or multiplies_bfloat16(device):
        return ""
    return "this processor has no bfloat16 products and computes them in software: --dtype float32 is faster here"


def machine() -> dict[str, Any]:
    """What a measurement of time depends on, beside the model."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
