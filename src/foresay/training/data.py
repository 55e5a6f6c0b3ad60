"""From a local file to token ids and what of them carries loss."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from foresay.errors import DataError

PROMPT_COLUMNS = ("prompt", "instruction", "question", "query")
RESPONSE_COLUMNS = ("response", "output", "answer", "completion")
TEXT_SUFFIXES = {".txt", ".md"}
TEXT_PROMPT_TOKENS = 16
"""Tokens of a plain text that stand as its prompt when it is decoded."""


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence of training data."""

    ids: tuple[int, ...]
    """Token ids."""
    answer: tuple[bool, ...]
    """Which tokens are to be predicted; prompt tokens are not."""
    domain: str = ""
    """Free label, for figures by domain."""

    @property
    def carries(self) -> list[bool]:
        """Row t predicts token t + 1: true where that one is part of an answer (so for the last prompt token)."""
        return [*self.answer[1:], False]

    @property
    def prompt(self) -> tuple[int, ...]:
        """Tokens before the first answer token, or the first few of a plain text."""
        first = self.answer.index(True)
        return self.ids[: max(first, min(TEXT_PROMPT_TOKENS, len(self.ids) - 1) if first <= 1 else first)]


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data file, before tokenisation."""

    place: str
    """File and line, for messages."""
    row: dict[str, Any]


def load_examples(path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Example]:
    """Every usable example of a JSON, JSONL or text file, at most `max_length` tokens each.

    Rows are chat (`messages`), prompt and response (under their usual names), plain `text`, or token `ids` with
    the number of `prompt_tokens`.
    Raises DataError, with file and line, for what cannot be read; for a file without one usable example, too.
    """
    examples: list[Example] = []
    rows = 0
    for record in read_records(path):
        rows += 1
        examples.extend(_encode(record, tokenizer, max_length))
    if not rows:
        raise DataError(f"{path} is empty; give a file with chat, prompt/response or text rows")
    if not examples:
        raise DataError(
            f"none of the {rows} rows of {path} has two answer tokens within {max_length} tokens; raise --max-length "
            "(up to the base's context) or shorten the prompts"
        )
    return examples


def read_records(path: Path) -> Iterator[Record]:
    """The rows of a data file: JSON list, JSON lines, or one plain text."""
    if not path.is_file():
        raise DataError(f"data file {path} does not exist; give a local JSON, JSONL or text file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
    if path.suffix in TEXT_SUFFIXES:
        if text.strip():
            yield Record(f"{path}:1", {"text": text})
    elif text.lstrip().startswith("["):
        yield from _json_list(path, text)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield Record(f"{path}:{number}", _row(_parse(path, line, number), f"{path}:{number}"))


def _json_list(path: Path, text: str) -> Iterator[Record]:
    for number, row in enumerate(_parse(path, text, 1), 1):
        yield Record(f"{path}, item {number}", _row(row, f"{path}, item {number}"))


def _parse(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{line + error.lineno - 1} is not JSON ({error.msg}); mend or remove the line"
        ) from error


def _row(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f"{place} is {type(row).__name__}, not an object with columns; write one object a row")
    return row


def _encode(record: Record, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Iterator[Example]:
    """Examples of one row, with two answer tokens or more each."""
    row = record.row
    messages = conversation(record)
    if isinstance(row.get("ids"), list):
        pieces = [_encoded(record, len(tokenizer))]
    elif messages is not None and tokenizer.chat_template is not None:
        pieces = [_encode_chat(messages, tokenizer, record.place)]
    elif messages is not None:
        pieces = [_encode_bare(messages, tokenizer)]
    elif isinstance(row.get("text"), str):
        ids = tokenizer(row["text"], verbose=False)["input_ids"] + _stop(tokenizer)
        pieces = [Tokens(ids[at : at + max_length], 0) for at in range(0, len(ids), max_length)]
    else:
        raise DataError(
            f"{record.place} has columns {', '.join(sorted(row)) or 'none'}; needed are messages, or one of "
            f"{'/'.join(PROMPT_COLUMNS)} with one of {'/'.join(RESPONSE_COLUMNS)}, or text"
        )
    for piece in pieces:
        ids, answer = piece.ids[:max_length], piece.answer[:max_length]
        # The block behind the token before an answer's first guesses from its second on: one token teaches nothing.
        if sum(answer[1:]) > 1:
            yield Example(tuple(ids), tuple(answer), str(row.get("domain", "")))


class Tokens:
    """Token ids of a row as they grow, and which of them answer."""

    def __init__(self, ids: list[int] | None = None, prompt: int = 0) -> None:
        self.ids = list(ids or ())
        self.answer = [place >= prompt for place in range(len(self.ids))]

    def add(self, ids: list[int], answer: bool) -> None:
        """Append tokens of one kind."""
        self.ids += ids
        self.answer += [answer] * len(ids)


def _encoded(record: Record, vocabulary: int) -> Tokens:
    """A row that brings its own ids."""
    ids, prompt = record.row["ids"], record.row.get("prompt_tokens", 0)
    known = all(isinstance(token, int) and 0 <= token < vocabulary for token in ids)
    if not known or not isinstance(prompt, int):
        raise DataError(
            f"{record.place} has ids or prompt_tokens that are no ids below {vocabulary} and no number; give text, "
            "or ids of the base's own tokenizer"
        )
    return Tokens(ids, prompt)


def conversation(record: Record) -> list[dict[str, str]] | None:
    """The row as chat messages, None when it is no conversation. Raises DataError for messages that are none."""
    row = record.row
    if isinstance(row.get("messages"), list):
        return checked_messages(record)
    prompt = next((row[name] for name in PROMPT_COLUMNS if isinstance(row.get(name), str)), None)
    response = next((row[name] for name in RESPONSE_COLUMNS if isinstance(row.get(name), str)), None)
    if prompt is None or response is None:
        return None
    if isinstance(row.get("input"), str) and row["input"]:
        prompt = f"{prompt}\n{row['input']}"
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


def checked_messages(record: Record) -> list[dict[str, str]]:
    """The row's messages, each with a role and a text. Raises DataError."""
    messages: list[dict[str, str]] = record.row["messages"]
    for turn, message in enumerate(messages, 1):
        whole = isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
        if not whole:
            raise DataError(f"{record.place}: message {turn} needs a role and a content, both text; mend or remove it")
    return messages


def _encode_chat(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, place: str) -> Tokens:
    """The whole conversation, with loss on the assistant's turns, found by comparing prefixes."""
    tokens = Tokens()
    for turn, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = template_ids(tokenizer, messages[:turn], prompt=True)
        whole = template_ids(tokenizer, messages[: turn + 1], prompt=False)
        if whole[: len(asked)] != asked or asked[: len(tokens.ids)] != tokens.ids:
            raise DataError(
                f"{place}: the chat template writes turn {turn + 1} differently once it is answered, so the answer's "
                "tokens cannot be told from the prompt's; give prompt/response rows instead"
            )
        tokens.add(asked[len(tokens.ids) :], answer=False)
        tokens.add(whole[len(asked) :], answer=True)
    return tokens


def _encode_bare(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Turn behind turn, for a tokenizer without a template: answers carry loss and end with the stop token."""
    tokens = Tokens()
    for turn, message in enumerate(messages):
        answer = message["role"] == "assistant"
        ids: list[int] = tokenizer(message["content"], add_special_tokens=turn == 0)["input_ids"]
        tokens.add(ids + (_stop(tokenizer) if answer else []), answer)
    return tokens


def template_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], prompt: bool) -> list[int]:
    """Token ids of chat messages, with the opening of an answer when `prompt`."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _stop(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
