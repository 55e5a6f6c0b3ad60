"""The embedded model inside vLLM through torch.compile, as vLLM runs unless told otherwise."""

from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from foresay.model import MultiTokenModel
from tests.serving.vllm.plugin.engines import behind_first, counted, engine, reference


def test_compiled_is_the_same_and_drafts_as_well(
    nano: MultiTokenModel, nano_copy: Path, prompts: list[list[int]]
) -> None:
    with engine(nano_copy) as llm:
        said, found = counted(llm, prompts)
    assert said == reference(nano, prompts)
    # A graph that left the gate out would give the same answers in many more steps. Fewer drafts, as many kept.
    assert found["drafts"] == pytest.approx(behind_first(nano, prompts, said).steps, rel=0.05)
