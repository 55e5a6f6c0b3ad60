"""Chats: columns that hold them, their turns, and token ids by the chat template."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from foresay.data.records import Record
from foresay.foundation.errors import DataError

CHAT_COLUMNS = ("messages", "conversations")
PROMPT_COLUMNS = ("prompt", "instruction", "question", "query")
RESPONSE_COLUMNS = ("response", "output", "answer", "completion")
SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant"}
"""Roles of `conversations` columns, in the words of `messages`."""


def encode(tokenizer: PreTrainedTokenizerBase, text: str, raw: bool = False) -> list[int]:
    """Token ids of a user's message: through the chat template where there is one, unless `raw`."""
    if tokenizer.chat_template is not None and not raw:
        return template_ids(tokenizer, [{"role": "user", "content": text}], prompt=True)
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids


def conversation(record: Record) -> list[dict[str, str]] | None:
    """The row as chat messages, None when it is no conversation. Raises DataError for messages that are none."""
    row = record.row
    if any(isinstance(row.get(name), list) for name in CHAT_COLUMNS):
        return checked_messages(record)
    prompt = next((row[name] for name in PROMPT_COLUMNS if isinstance(row.get(name), str)), None)
    response = next((row[name] for name in RESPONSE_COLUMNS if isinstance(row.get(name), str)), None)
    if prompt is None or response is None:
        return None
    if isinstance(row.get("input"), str) and row["input"]:
        prompt = f"{prompt}\n{row['input']}"
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def checked_messages(record: Record) -> list[dict[str, str]]:
    """The row's messages, each with a role and a text (or `from` and `value`). Raises DataError."""
    said = next(record.row[name] for name in CHAT_COLUMNS if isinstance(record.row.get(name), list))
    messages = []
    for turn, message in enumerate(said, 1):
        role, content = _turn(message) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(f"{record.place}: message {turn} needs a role and a content, both text; mend or remove it")
        messages.append({"role": role, "content": content})
    return messages


def _turn(message: dict[str, Any]) -> tuple[Any, Any]:
    if "from" in message:
        return SPEAKERS.get(message["from"], message["from"]), message.get("value")
    return message.get("role"), message.get("content")


def template_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], prompt: bool) -> list[int]:
    """Token ids of chat messages, with the opening of an answer when `prompt`."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
