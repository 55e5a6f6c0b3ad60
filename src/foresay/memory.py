"""The most memory that a stretch of code held.

On CUDA: bytes of tensors on the device, the weights among them. On a CPU under Linux: the resident set of the whole
process, whose mark the kernel sets back when asked; Python, torch and what the allocator did not give back are in it,
so it says what a machine must have rather than what one decoder needs. Elsewhere it is not measured.
"""

from pathlib import Path

import torch

STATUS, MARKS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SET_BACK = "5"
"""Written to `MARKS`, it makes the peak of the resident set the present one."""


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
