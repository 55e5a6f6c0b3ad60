"""Tiny random models of every architecture that the laws run over, and adapters that hide nothing.

Parameters are drawn with standard deviation 0.2 (vectors, so norms and biases, around their start), adapters too: at
transformers' own 0.02 attention hardly matters and outputs loop, and after a zero up-projection a leaking gate leaks
zeros. The stop token is off.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, Literal

import torch
import transformers
from transformers import AutoModelForCausalLM, Phi3ForCausalLM, PreTrainedModel

from foresay.models.config import MTPConfig
from foresay.models.masks.model import MaskModel

VOCABULARY = 96
STD = 0.2
MASKS = 8
DEFAULT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


@dataclass(frozen=True, eq=False)
class Toy:
    """A tiny model: the name of its config class and what differs from `DEFAULT`."""

    name: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    """Chosen so that greedy outputs are diverse."""
    attention: str = "sdpa"
    experts: bool = False
    """Rows are dispatched to experts: which rows share a product depends on all rows, and so do the last bits."""

    def model(self, **more: Any) -> PreTrainedModel:
        """A new model with redrawn weights; `more` overrides settings."""
        config = getattr(transformers, f"{self.kind}Config")(**{**DEFAULT, **self.settings, **more})
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = AutoModelForCausalLM.from_config(config, attn_implementation=self.attention).eval()
        model.generation_config.eos_token_id = None
        redraw(model, self.seed)
        return model


def redraw(module: torch.nn.Module, seed: int) -> None:
    """Draw every parameter with deviation `STD`: matrices around zero, vectors around their start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = (torch.randn(parameter.shape, generator=generator) * STD).to(parameter.device)
            parameter.copy_(noise + parameter if parameter.ndim == 1 else noise)


def with_adapter(
    model: PreTrainedModel,
    masks: int = MASKS,
    sampler: Literal["paper", "residual", "none"] = "residual",
    seed: int = 1,
    train_masks: bool = True,
) -> MaskModel:
    """`model` with an adapter of which every tensor is non-zero."""
    config = MTPConfig(
        num_masks=masks, rank=4, alpha=6, lora_targets=("all",), sampler=sampler, train_masks=train_masks
    )
    mtp = MaskModel.from_base(model, config)
    redraw(mtp.adapter, seed)
    return mtp


@lru_cache
def pristine(toy: Toy) -> PreTrainedModel:
    """The toy as transformers knows it; nobody hooks or trains it."""
    return toy.model().requires_grad_(False)


@lru_cache
def adapted(toy: Toy, seed: int = 1) -> MaskModel:
    """The toy with an adapter; nobody trains it."""
    return with_adapter(toy.model(), seed=seed)


@cache
def own_output(toy: Toy, prompt: tuple[int, ...], max_length: int, stops: tuple[int, ...] = ()) -> list[int]:
    """What transformers' own greedy `generate` continues `prompt` with, alone and unpadded, up to `max_length`."""
    ids = torch.tensor([prompt])
    settings = {"do_sample": False, "max_length": max_length, "eos_token_id": list(stops) or None, "pad_token_id": 0}
    # transformers 5.17 reads the last token alone where Phi-3 has dropped its cache: the text is then another one.
    settings["use_cache"] = toy.settings.get("rope_parameters") is not LONGROPE or READS_ALL_ANEW
    text = pristine(toy).generate(ids, attention_mask=torch.ones_like(ids), **settings)
    continuation: list[int] = text[0, len(prompt) :].tolist()
    return continuation


def random_prompts(lengths: Sequence[int], seed: int = 0) -> list[tuple[int, ...]]:
    """Prompts of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(VOCABULARY, (length,), generator=generator).tolist()) for length in lengths]


WIDE = {"hidden_size": 64, "intermediate_size": 192}
HEADS = {"head_dim": 8}
MIXED = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 16,
    "factor": 16.0,
}
SWITCH = 16
"""Position at which `PHI3_LONGROPE` changes its frequencies."""
READS_ALL_ANEW = "next_sequence_length" in inspect.getsource(Phi3ForCausalLM.prepare_inputs_for_generation)
"""Whether Phi-3's own `generate` reads the whole text again at that position, where it drops its cache."""

LLAMA = Toy("llama", "Llama")
QWEN3_MOE = Toy("qwen3-moe", "Qwen3Moe", {**HEADS, **EXPERTS}, experts=True)
MIXTRAL = Toy("mixtral", "Mixtral", EXPERTS, experts=True)
MISTRAL_WINDOW = Toy("mistral-window", "Mistral", {"sliding_window": 6})
GEMMA2 = Toy("gemma2", "Gemma2", {**HEADS, **MIXED, "query_pre_attn_scalar": 8}, attention="eager")
GEMMA3 = Toy("gemma3", "Gemma3Text", {**HEADS, **MIXED, "query_pre_attn_scalar": 8})
PHI3_LONGROPE = Toy("phi3-longrope", "Phi3", {"original_max_position_embeddings": SWITCH, "rope_parameters": LONGROPE})
GPT2 = Toy("gpt2", "GPT2", {**WIDE, "n_inner": 192}, seed=1)
OPT = Toy("opt", "OPT", {**WIDE, "ffn_dim": 192})
FALCON = Toy(
    "falcon",
    "Falcon",
    {**WIDE, "ffn_hidden_size": 192, "new_decoder_architecture": True, "num_kv_heads": 2},
    seed=7,
)
OPT_PROJECTED = Toy("opt-projected", "OPT", {**WIDE, "ffn_dim": 192, "word_embed_proj_dim": 48}, seed=3)
LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 6,
}
"""Multi-head latent attention: the cache holds latents, of which keys and values are made."""
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1}
DEEPSEEK3 = Toy("deepseek3", "DeepseekV3", {**LATENT, **ROUTED, "first_k_dense_replace": 1}, experts=True)
MINICPM3 = Toy("minicpm3", "MiniCPM3", LATENT)
TOYS = [
    LLAMA,
    Toy("qwen2", "Qwen2", seed=3),
    Toy("qwen3", "Qwen3", HEADS),
    QWEN3_MOE,
    Toy("qwen2-moe", "Qwen2Moe", {**EXPERTS, "shared_expert_intermediate_size": 24}, seed=1, experts=True),
    Toy("mistral", "Mistral", {"sliding_window": None}),
    MISTRAL_WINDOW,
    MIXTRAL,
    Toy("gemma", "Gemma", HEADS),
    GEMMA2,
    GEMMA3,
    Toy("phi", "Phi", WIDE, seed=4),
    Toy("phi3", "Phi3"),
    PHI3_LONGROPE,
    Toy("olmo2", "Olmo2", WIDE, seed=1),
    Toy("smollm3", "SmolLM3", {"no_rope_layers": [1, 0]}),
    Toy("starcoder2", "Starcoder2", {**WIDE, "sliding_window": 6}),
    Toy("granite", "Granite", {"logits_scaling": 2.0, "residual_multiplier": 0.7, "embedding_multiplier": 3.0}),
    Toy("gpt-neox", "GPTNeoX", WIDE, seed=2),
    GPT2,
    OPT,
    OPT_PROJECTED,
    FALCON,
    Toy("cohere2", "Cohere2", {**MIXED, "logit_scale": 0.5}),
    Toy(
        "gpt-oss",
        "GptOss",
        {**HEADS, **MIXED, **EXPERTS, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        attention="eager",
        experts=True,
    ),
    Toy("exaone4", "Exaone4", MIXED),
    DEEPSEEK3,
    *([MINICPM3] if hasattr(transformers, "MiniCPM3Config") else []),
]
