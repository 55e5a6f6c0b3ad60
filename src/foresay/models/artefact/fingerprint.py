"""Short hashes of what an adapter belongs to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foresay.foundation.hashes import SHORT, sha256, short_hash
from foresay.models.base.quantization import quantization_of
from foresay.models.base.user_lora import adapter_weights, base_weights

SAMPLED_VALUES = 64
"""Values of each tensor that go into a fingerprint."""


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What an adapter was trained on, as short hashes; None where there was no such thing."""

    base: str | None
    """None for a quantised base: what its weights are depends on where they were quantised."""
    tokenizer: str | None = None
    chat_template: str | None = None
    embeddings: str | None = None
    """Of the input embeddings, which stay as they are when a base is quantised."""
    base_adapter: str | None = None
    """Of the user's LoRA that the base carries; None when it carries none."""

    def differing(self, other: "Fingerprints") -> list[str]:
        """What is known of both and not the same."""
        known = {entry.name: (getattr(self, entry.name), getattr(other, entry.name)) for entry in fields(self)}
        return [name for name, pair in known.items() if None not in pair and pair[0] != pair[1]]


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Fingerprints:
    """Fingerprints of a base (names, shapes and sampled values of its weights, as bfloat16) and its tokenizer.

    A base has the same one in float32 and bfloat16; a float32 checkpoint opened in float16 is rounded twice and may
    get another.
    """
    quantised = bool(quantization_of(model.config))
    lora = adapter_weights(model)
    found = Fingerprints(
        base=None if quantised else weights_hash(base_weights(model)),
        embeddings=weights_hash({"": model.get_input_embeddings().weight}),
        base_adapter=weights_hash(lora) if lora else None,
    )
    if tokenizer is None:
        return found
    spoken = tokenizer_fingerprints(tokenizer)
    return replace(found, tokenizer=spoken.tokenizer, chat_template=spoken.chat_template)


def tokenizer_fingerprints(tokenizer: PreTrainedTokenizerBase) -> Fingerprints:
    """Fingerprints of a tokenizer alone."""
    template = tokenizer.chat_template
    return Fingerprints(
        base=None,
        tokenizer=short_hash(json.dumps(sorted(tokenizer.get_vocab().items()))),
        chat_template=short_hash(template) if isinstance(template, str) else None,
    )


def weights_hash(weights: Mapping[str, Tensor | float]) -> str:
    """Of names, shapes and sampled values, as bfloat16."""
    return sha256(part for name, value in sorted(weights.items()) for part in _sampled(name, value))[:SHORT]


def _sampled(name: str, value: Tensor | float) -> tuple[str, bytes]:
    tensor = torch.as_tensor(value).detach()
    flat = tensor.flatten()
    some = flat[:: max(flat.numel() // SAMPLED_VALUES, 1)]
    return f"{name} {tuple(tensor.shape)}", some.to(torch.bfloat16).float().cpu().numpy().tobytes()
