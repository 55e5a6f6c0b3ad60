"""What this machine multiplies in hardware."""

import torch

from foresay.config import DType


def in_software(dtype: DType, device: torch.device) -> str:
    """A sentence for whoever asked for `dtype` where products in it are computed in software; else nothing.

    Without bfloat16 instructions a product takes about ten times as long as in float32 (docs/experiments.md, 11).
    """
    # Behind torch's own choice of kernels; there is no public name for it.
    native: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if device.type != "cpu" or dtype != "bfloat16" or native:
        return ""
    return "this processor has no bfloat16 products and computes them in software: --dtype float32 is faster here"
