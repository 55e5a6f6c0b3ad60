"""What may be asked of a model in Python: a text, a chat, token ids, or a list of one of these."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from foresay.data.chat import encode
from foresay.data.columns import conversation
from foresay.data.records import Record
from foresay.foundation.errors import DataError, PromptError

Tokenizer = Callable[[], PreTrainedTokenizerBase]
FORMS = "a text, a list of texts, a chat (messages with role and content), a list of chats, token ids, or lists of them"


def prompt_ids(asked: Any, tokenizer: Tokenizer, raw: bool) -> tuple[list[list[int]], bool]:
    """Token ids of each prompt, and whether it was one prompt and no list of prompts.

    `tokenizer` is called for texts and chats alone, and may raise where there is none.

    A text is a user's message, or with `raw` a text to go on with. Tensors and arrays are lists of ids. Raises
    PromptError for anything else, by name.

    >>> prompt_ids([3, 4], lambda: None, raw=False)
    ([[3, 4]], True)
    """
    if isinstance(asked, Mapping) and "input_ids" in asked:
        kind = type(asked).__name__
        raise PromptError(f"the prompt is what a tokenizer gave ({kind}); give its input_ids, or unpack it (**inputs)")
    asked = _listed(asked)
    if _is_list(asked):
        asked = [_listed(prompt) for prompt in asked]
    one = isinstance(asked, str) or (_is_list(asked) and bool(asked) and _is_prompt(asked))
    if not one and not (_is_list(asked) and asked and all(map(_is_prompt, asked))):
        raise PromptError(f"the prompt is {_described(asked)}; give {FORMS}")
    return [_ids(prompt, tokenizer, raw) for prompt in ([asked] if one else asked)], one


def _listed(value: Any) -> Any:
    """Lists and numbers in place of tensors and arrays."""
    return value.tolist() if hasattr(value, "tolist") else value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_prompt(value: Any) -> bool:
    """A text, a chat or token ids."""
    ids = _is_list(value) and all(isinstance(token, int) and not isinstance(token, bool) for token in value)
    chat = _is_list(value) and all(isinstance(message, dict) for message in value)
    return isinstance(value, str) or ids or chat


def _ids(prompt: Any, find: Tokenizer, raw: bool) -> list[int]:
    if not isinstance(prompt, str) and not isinstance(prompt[0] if prompt else 0, dict):
        return list(prompt)
    tokenizer = find()
    try:
        if isinstance(prompt, str):
            return encode(tokenizer, prompt, raw)
        chat = conversation(Record("", {"messages": list(prompt)}), answers=False)
        assert chat is not None, "messages are a conversation"
        if tokenizer.chat_template is None:
            raise DataError("the model has no chat template; give a text")
        return chat.ids(tokenizer, prompt=True)
    except DataError as error:
        raise PromptError(str(error)) from error


def _described(value: Any) -> str:
    if not _is_list(value):
        return f"of type {type(value).__name__}"
    strange = next((item for item in value if not _is_prompt(item) and not isinstance(item, int)), None)
    kinds = ", ".join(sorted({type(item).__name__ for item in value}))
    return "an empty list" if not value else f"a list of {kinds if strange is None else type(strange).__name__}"


def padded(asked: Any, tokenizer: Tokenizer, device: torch.device, arguments: dict[str, Any]) -> Tensor:
    """Prompts (B, P) int64 in the forms of `prompt_ids`, padded on the left; their mask goes to `arguments`.

    Texts are gone on with. Raises PromptError, also where a mask was given.
    """
    if "attention_mask" in arguments:
        raise PromptError("an attention_mask was given beside prompts that are no tensor; leave it out")
    prompts, _ = prompt_ids(asked, tokenizer, raw=True)
    longest = max(map(len, prompts))
    seen = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
    arguments["attention_mask"] = torch.tensor(seen, device=device)
    return torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts], device=device)
