"""Small GGUF files, written by the package `gguf` from a Llama with random weights."""

from collections.abc import Collection
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "th"]
CONFIG = LlamaConfig(
    vocab_size=len(TOKENS),
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    intermediate_size=96,
    max_position_embeddings=512,
    tie_word_embeddings=True,
)
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
HEADS = {"self_attn.q_proj": 2, "self_attn.k_proj": 1}


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Of the Llama, by transformers' names."""
    torch.manual_seed(seed)
    state = LlamaForCausalLM(CONFIG).state_dict()
    return {name: value.numpy() for name, value in state.items() if name != "lm_head.weight"}


def write_gguf(
    path: Path,
    quantization: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q4_1,
    architecture: str = "llama",
    tokenizer: bool = True,
    without: Collection[str] = (),
) -> dict[str, torch.Tensor]:
    """Write the file; what its blocks dequantise to comes back, by transformers' names."""
    writer = gguf.GGUFWriter(path, architecture)
    _write_settings(writer)
    if tokenizer:
        _write_tokenizer(writer)
    kept = {}
    for name, value in weights().items():
        kind = quantization if value.ndim == 2 else gguf.GGMLQuantizationType.F32
        own, turned = _for_gguf(name, value)
        blocks = gguf.quantize(turned, kind)
        kept[name] = torch.from_numpy(gguf.dequantize(gguf.quantize(value, kind), kind).reshape(value.shape))
        if own not in without:
            writer.add_tensor(own, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


def _for_gguf(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    """Name and rows as llama.cpp has them: rotary halves of queries and keys stand in turn."""
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[
            name
        ], value
    _, _, layer, rest = name.split(".", 3)
    part = rest.removesuffix(".weight")
    if part in HEADS:
        halves = value.reshape(HEADS[part], 2, -1, value.shape[1])
        value = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(value.shape))
    return f"blk.{layer}.{NAMES[part]}.weight", value


def _write_settings(writer: gguf.GGUFWriter) -> None:
    writer.add_name("toy")
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_context_length(CONFIG.max_position_embeddings)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_head_count(CONFIG.num_attention_heads)
    writer.add_head_count_kv(CONFIG.num_key_value_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(TOKENS))


def _write_tokenizer(writer: gguf.GGUFWriter) -> None:
    special = [gguf.TokenType.CONTROL] * len(SPECIALS)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([*special, *[gguf.TokenType.NORMAL] * (len(TOKENS) - len(SPECIALS))])
    writer.add_token_merges(["h e", "t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
