"""Tests inside vLLM, in an environment of its own: `make test-vllm`. One engine a module, for each takes its time."""

import os
from pathlib import Path

os.environ |= {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
}

import pytest

from foresay.data.prompts import embedded_prompts
from foresay.model import MultiTokenModel
from foresay.models.base.load import adapter_folder
from foresay.serving.config import PluginConfig
from foresay.serving.vllm.export import export_vllm


@pytest.fixture(scope="session")
def nano() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano")


@pytest.fixture(scope="session")
def nano_copy(nano: MultiTokenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A served copy of nano in float32."""
    folder = tmp_path_factory.mktemp("served") / "nano"
    export_vllm(nano, adapter_folder("nano"), folder, PluginConfig(), overwrite=False)
    return folder


@pytest.fixture(scope="session")
def prompts(nano: MultiTokenModel) -> list[list[int]]:
    """Three held-out prompts of each domain."""
    return [list(prompt.ids) for prompt in embedded_prompts(nano.require_tokenizer(), "test", 3)]
