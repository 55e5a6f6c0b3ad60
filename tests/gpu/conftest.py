"""The device, the models and the prompts of the laws."""

from collections.abc import Sequence

import pytest
import torch

from foresay.data.prompts import Prompt, embedded_prompts
from foresay.model import MultiTokenModel
from foresay.models.config import DType, LoadConfig
from tests.gpu import REHEARSED


@pytest.fixture(scope="session")
def device() -> str:
    """Where the laws run: `cuda`, or `cpu` where they are rehearsed."""
    if REHEARSED:
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device, and these laws are of one; benchmarks/gpu/run.py runs them on a card")
    return "cuda"


@pytest.fixture(scope="session")
def loading(device: str) -> LoadConfig:
    """A base on that device."""
    return LoadConfig(device=device)


@pytest.fixture(scope="session")
def nano(loading: LoadConfig) -> MultiTokenModel:
    """The embedded model in float32."""
    return MultiTokenModel.from_pretrained("nano", dtype="float32", loading=loading)


@pytest.fixture(scope="session")
def half(device: str, loading: LoadConfig) -> MultiTokenModel:
    """The embedded model in bfloat16; rehearsed in float32, as not every CPU multiplies the other."""
    dtype: DType = "bfloat16" if device == "cuda" else "float32"
    return MultiTokenModel.from_pretrained("nano", dtype=dtype, loading=loading)


@pytest.fixture(scope="session")
def prompts(nano: MultiTokenModel) -> Sequence[Prompt]:
    """Eight held-out prompts, three where the laws are rehearsed, of all lengths."""
    by_length = sorted(embedded_prompts(nano.require_tokenizer(), "test", 8), key=lambda prompt: len(prompt.ids))
    return by_length[:3] if REHEARSED else by_length[:: len(by_length) // 8][:8]
