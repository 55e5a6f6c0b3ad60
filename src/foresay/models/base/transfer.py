"""Numbers on their way from the host to the device, without a wait."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def to_device(numbers: Sequence[Any] | Tensor, device: torch.device, dtype: torch.dtype = torch.int64) -> Tensor:
    """`numbers` as a tensor on `device`.

    A plain `torch.tensor(numbers, device=...)` makes the host wait until a CUDA device has done all that it was asked
    to; a copy from pinned memory is queued after that work instead.
    """
    pinned = device.type == "cuda"
    host = numbers if isinstance(numbers, Tensor) else torch.tensor(numbers, dtype=dtype)
    return host.pin_memory().to(device, non_blocking=True) if pinned else host.to(device)
