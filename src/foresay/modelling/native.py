"""What this machine multiplies in hardware, and in which dtype a base is loaded for it."""

import torch

from foresay.config import DType, LoadDType

BFLOAT16_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16")
"""Instructions of processors that multiply bfloat16, as torch names them: x86-64 twice, ARM."""


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are computed in hardware; in software they take some ten times as long as float32's
    (docs/experiments.md, 11).
    """
    return device.type != "cpu" or any(torch.cpu.get_capabilities().get(name, False) for name in BFLOAT16_PRODUCTS)


def dtype_for(asked: LoadDType, own: DType, device: torch.device) -> DType:
    """What `asked` means for a checkpoint whose dtype is `own` on `device`; see `LoadDType`."""
    if asked != "auto":
        return asked
    pays = device.type != "cpu" or (own == "bfloat16" and multiplies_bfloat16(device))
    return own if pays else "float32"


def in_software(dtype: str, device: torch.device) -> str:
    """A sentence for whoever asked for `dtype` where that is slow; else nothing."""
    if dtype != "bfloat16" or multiplies_bfloat16(device):
        return ""
    return "this processor has no bfloat16 products and computes them in software: --dtype float32 is faster here"
