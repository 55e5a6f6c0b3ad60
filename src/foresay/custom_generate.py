"""What the `custom_generate` of a published model calls: an adapter opened once on the model that generates."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import GenerateDecoderOnlyOutput

from foresay.foundation.errors import BaseNotFound
from foresay.model import MultiTokenModel
from foresay.models.base.load import load_tokenizer

_OPENED: WeakKeyDictionary[PreTrainedModel, dict[str, MultiTokenModel]] = WeakKeyDictionary()


def generate_with(adapter: str, model: PreTrainedModel, **arguments: Any) -> torch.Tensor | GenerateDecoderOnlyOutput:
    """transformers' `generate` of `model` with the adapter of that name or folder: the same arguments, the same result.

    The adapter is opened on the model at the first call. Raises what `MultiTokenModel.from_pretrained` and `generate`
    raise.
    """
    opened = _OPENED.setdefault(model, {})
    if adapter not in opened:
        opened[adapter] = MultiTokenModel.from_pretrained(adapter, model, _tokenizer(model))
    given = {name: value for name, value in arguments.items() if value is not None}
    return opened[adapter].generate(**given)


def _tokenizer(model: PreTrainedModel) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model that knows where it came from, and came with one."""
    try:
        return load_tokenizer(model.name_or_path)
    except BaseNotFound:
        return None
