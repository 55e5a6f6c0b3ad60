"""A random toy with an adapter that hides nothing: untied, `paper` sampler, prompts in chunks, drafts only at times.

Its vocabulary is so large that drafts are taken from a shortlist.
"""

from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from foresay.model import MultiTokenModel
from foresay.serving.config import PluginConfig
from foresay.serving.vllm.export import export_vllm
from tests.serving.vllm.plugin.engines import answers, counts, engine, reference
from tests.support.toys import Toy, random_prompts, with_adapter

LARGE = {"vocab_size": 20_000, "hidden_size": 128, "head_dim": 32, "intermediate_size": 96}
TOY = Toy("wide-qwen3", "Qwen3", LARGE)


def test_a_leaking_gate_would_show(tmp_path: Path) -> None:
    model = MultiTokenModel(with_adapter(TOY.model(), masks=3, sampler="paper"), None, "toy")
    model.save_pretrained(tmp_path / "adapter")
    export_vllm(model, tmp_path / "adapter", tmp_path / "served", PluginConfig(busy_requests=4), overwrite=False)
    prompts = random_prompts((3, 7, 90, 12, 5, 150, 1, 33))
    cut = {"max_num_batched_tokens": 64, "max_num_seqs": 8, "max_model_len": 256, "skip_tokenizer_init": True}
    with engine(tmp_path / "served", enforce_eager=True, **cut) as llm:
        assert answers(llm, prompts, detokenize=False) == reference(model, prompts)
        together = counts(llm)["drafts"]
        assert answers(llm, prompts[:4], detokenize=False) == reference(model, prompts[:4])
        alone = counts(llm)["drafts"] - together
    # Four are not too many. Of eight, drafts are made while the first ones have come and when the last ones are left.
    assert alone > 4 * 40
    assert together < alone / 4
