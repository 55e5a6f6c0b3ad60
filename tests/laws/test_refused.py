"""A base that explicit rows cannot drive is refused in one sentence with a reason and a cure, and before any token."""

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from foresay.decoding.config import DecodeConfig
from foresay.foundation.errors import UnsupportedBase
from foresay.models.base.model import Base
from tests.support.checks import check_greedy_is_plain
from tests.support.toys import LLAMA, WIDE, Toy, with_adapter

SMALL = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}
T5 = {"vocab_size": 96, "d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4}
LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"],
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 8,
}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48}
PER_LAYER = {**HEADS, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 96, "num_kv_shared_layers": 0}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mamba": ("Mamba", SMALL, "recurrent state"),
    "mamba-hybrid": ("Qwen3Next", {**SMALL, **HEADS, **LINEAR_ATTENTION}, "recurrent state"),
    "bloom": ("Bloom", {**SMALL, "n_head": 4, "n_layer": 2}, "ALiBi"),
    "falcon-alibi": ("Falcon", {**SMALL, "num_attention_heads": 4, "alibi": True}, "ALiBi"),
    "mpt": ("Mpt", {"vocab_size": 96, "d_model": 32, "n_heads": 4, "n_layers": 2}, "ALiBi"),
    "t5": ("T5", T5, "encoder-decoder"),
    "chunked-attention": ("Llama4Text", {**SMALL, **HEADS, "num_local_experts": 2}, "chunked_attention"),
    "per-layer-embeddings": ("Gemma3nText", {**SMALL, **PER_LAYER, "layer_types": ["full_attention"] * 2}, "per-layer"),
    "shared-kv": (
        "Gemma3nText",
        {**SMALL, **PER_LAYER, "num_hidden_layers": 4, "num_kv_shared_layers": 2},
        "shares K/V",
    ),
    "bert": ("Bert", {**SMALL, **HEADS, "is_decoder": False}, "other logits"),
}


def build(kind: str, settings: dict[str, Any]) -> PreTrainedModel:
    config = getattr(transformers, f"{kind}Config")(**settings)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = auto.from_config(config)
    return model.eval()


def assert_one_sentence(message: str, model: PreTrainedModel) -> None:
    assert message.startswith(f"{type(model).__name__} ")
    assert message.rpartition("; ")[2].startswith(("give ", "load ")), f"no cure: {message}"
    assert "\n" not in message
    assert ". " not in message
    assert not message.endswith(".")


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_sentence(name: str) -> None:
    kind, settings, reason = REFUSED[name]
    model = build(kind, settings)
    with pytest.raises(UnsupportedBase, match=reason) as refusal:
        with_adapter(model)
    assert_one_sentence(str(refusal.value), model)


def test_attention_that_takes_no_explicit_mask_is_refused() -> None:
    model = LLAMA.model()
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(UnsupportedBase, match="flex_attention") as refusal:
        Base(model)
    assert_one_sentence(str(refusal.value), model)


LOCAL = {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 6}
# Bases that pass a short look: their attention counts slots, not positions, or keeps more than keys and values.
TRICKY = [
    Toy("gpt-neo-local", "GPTNeo", {**WIDE, **LOCAL}, seed=0, attention="eager"),
    Toy("doge", "Doge", WIDE),
]


@pytest.mark.parametrize("layout", ["plain", "quadratic", "tree"])
@pytest.mark.parametrize("toy", TRICKY, ids=lambda toy: toy.name)
def test_refused_or_lossless(toy: Toy, layout: str) -> None:
    try:
        mtp = with_adapter(toy.model())
    except UnsupportedBase as refusal:
        assert_one_sentence(str(refusal), toy.model())
        return
    check_greedy_is_plain(mtp, toy, DecodeConfig(layout=layout, masks=2, max_new_tokens=32))
