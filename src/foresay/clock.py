"""Time as a user feels it: what the device was given to do is done before the clock is read."""

import time

import torch


def now(device: torch.device) -> float:
    """Seconds of a clock that never goes back, after all work of `device`."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
