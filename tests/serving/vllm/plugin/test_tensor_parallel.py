"""The embedded model inside vLLM on two ranks: heads, LoRA and the masks' vocabulary rows are sharded."""

from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from foresay.model import MultiTokenModel
from tests.serving.vllm.plugin.engines import behind_first, counted, engine, reference


def test_two_ranks_are_the_same(
    nano: MultiTokenModel, nano_copy: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")
    with engine(nano_copy, {"lengths": "all"}, enforce_eager=True, tensor_parallel_size=2) as llm:
        said, found = counted(llm, prompts)
    assert said == reference(nano, prompts)
    assert found["drafts"] == pytest.approx(behind_first(nano, prompts, said).steps, rel=0.02)
