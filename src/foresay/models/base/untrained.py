"""A model with random weights, from a config and a tokenizer."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from foresay.foundation.errors import ConfigError, in_words
from foresay.models.base.load import load_tokenizer
from foresay.models.config import HeadsConfig

BYTES = "bytes"
"""Name of the built-in tokenizer: one token a byte."""
SPECIALS = ("<|endoftext|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>{% generation %}{{ m['content'] }}"
    "<|endoftext|>{% endgeneration %}{% else %}<|user|>{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """Every byte is the token of its own number; after the 256 stand end of text, user and assistant."""
    letters = bytes_to_unicode()
    tokenizer = Tokenizer(models.BPE(vocab={letters[byte]: byte for byte in range(256)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(special, special=True, normalized=False) for special in SPECIALS])
    end = SPECIALS[0]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end, pad_token=end)
    fast.chat_template = TEMPLATE
    return fast  # type: ignore[no-any-return]


def named_tokenizer(config: str, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer called `name` (`bytes`, a folder, a hub id), or, without a name, the one beside the config.

    Raises BaseNotFound, ConfigError.
    """
    if name == BYTES:
        return byte_tokenizer()
    if not name and Path(config).is_file():
        raise ConfigError(
            f"{config} is a file and brings no tokenizer; give --tokenizer with a folder, a hub id or {BYTES}"
        )
    return load_tokenizer(name or config)


def read_config(name: str) -> dict[str, Any]:
    """What a JSON file, or `config.json` of a folder, says of a model. Raises ConfigError."""
    path = Path(name) / "config.json" if Path(name).is_dir() else Path(name)
    cure = "give a folder with a Hugging Face config.json, or such a file"
    with in_words(ConfigError, f"config {path} cannot be read", cure, ValueError):
        said = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(said, dict) or "model_type" not in said:
        raise ConfigError(f"config {path} names no model_type; give a Hugging Face config.json of a causal LM")
    return said


def blank_model(
    said: dict[str, Any], tokenizer: PreTrainedTokenizerBase, heads: HeadsConfig, added_layers: bool, seed: int
) -> PreTrainedModel:
    """A causal LM as the config `said` wants it, with float32 weights drawn from `seed`: trunk and head 1.

    The config's layers are those of the trunk and of all heads together (paper B, "layers incl. heads"), unless heads
    2..n come on top. Special tokens are the tokenizer's. Raises ConfigError.
    """
    try:
        whole = AutoConfig.for_model(**said)
        key = type(whole).attribute_map.get("num_hidden_layers", "num_hidden_layers")
        layers = ordinary_layers(whole.num_hidden_layers, heads, added_layers)
        named = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        said = {"vocab_size": len(tokenizer)} | said | named | {key: layers}
        if said.get("layer_types"):
            said["layer_types"] = said["layer_types"][:layers]
        config = AutoConfig.for_model(**said)
        if len(tokenizer) > config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {len(tokenizer)} tokens and the config's vocab_size is {config.vocab_size}; give "
                "them the same size"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (StrictDataclassError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ConfigError(
            f"no causal LM can be made from the config ({' '.join(str(error).split())[:300]}); mend it"
        ) from error
    model.generation_config = GenerationConfig(**named)
    return model


def ordinary_layers(layers: int, heads: HeadsConfig, added: bool) -> int:
    """Decoder layers of trunk and head 1, for a config of `layers`. Raises ConfigError where no trunk would be left."""
    beside = max(heads.layers - 1, 0)
    trunk = layers if added else layers - beside
    if trunk < 2 and beside:
        raise ConfigError(
            f"{heads.heads} heads were asked for and the config has {layers} layers, so no trunk would be left; ask "
            f"for at most {layers - 1} heads, or give --added-layers"
        )
    return trunk + (beside if heads.variant == "anticausal" else 0)
