"""Who asks for bfloat16 hears it where the processor has none."""

from types import SimpleNamespace

import pytest
import torch

from foresay.foundation.machine import in_software
from foresay.models.config import DType


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
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: native))
    assert bool(in_software(dtype, torch.device(device))) == said
