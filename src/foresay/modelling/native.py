"""What this machine multiplies in hardware."""

import torch

from foresay.config import DType


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are computed in hardware; in software they take some ten times as long as float32's
    (docs/experiments.md, 11).
    """
    # What torch chooses its kernels by; there is no public name for it.
    native: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return device.type != "cpu" or native


def in_software(dtype: DType, device: torch.device) -> str:
    """A sentence for whoever asked for `dtype` where that is slow; else nothing."""
    if dtype != "bfloat16" or multiplies_bfloat16(device):
        return ""
    return "this processor has no bfloat16 products and computes them in software: --dtype float32 is faster here"
