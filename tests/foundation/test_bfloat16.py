"""What a processor multiplies in hardware; who asks for bfloat16 hears it where it has none."""

import pytest
import torch

from foresay.foundation.machine import in_software, multiplies_bfloat16
from foresay.models.config import DType


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({}, False),
        ({"architecture": "x86_64", "avx2": True, "avx512_f": True, "avx512_bw": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": True}, True),
    ],
)
def test_products_are_what_the_processor_says(
    capabilities: dict[str, object], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert multiplies_bfloat16(torch.device("cpu")) == native
    assert multiplies_bfloat16(torch.device("cuda"))


@pytest.mark.parametrize(
    ("dtype", "device", "native", "said"),
    [
        ("bfloat16", "cpu", False, True),
        ("bfloat16", "cpu", True, False),
        ("float32", "cpu", False, False),
        ("bfloat16", "cuda", False, False),
    ],
)
def test_bfloat16_in_software_is_told(
    dtype: DType, device: str, native: bool, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": native})
    assert bool(in_software(dtype, torch.device(device))) == said
