"""Which columns of a row hold what: a chat in one of several formats, or a question with its answer.

One reading for training, preview, generated answers and files of prompts. Formats: `messages` (OpenAI, transformers),
`conversations` (ShareGPT), prompt and response as texts (Alpaca, with `input`, `system`, `history`) or as lists of
messages (TRL). Lists and objects may come as JSON text, as CSV and Arrow need them.
"""

import json
from collections.abc import Collection
from typing import Any

from foresay.data.chat import Chat, Message, says
from foresay.data.records import Record
from foresay.foundation.errors import DataError

CHAT_COLUMNS = ("messages", "conversations")
PROMPT_COLUMNS = ("prompt", "instruction", "question", "query")
RESPONSE_COLUMNS = ("response", "output", "answer", "completion")
GIVEN_COLUMNS = ("ids", "prompt_tokens", "prompt", "response", "row", "ended")
"""Of rows that `data generate` wrote."""
LABELS = ("domain", "benchmark", "split")
"""Read beside any format, or said by it."""
SPEAKERS = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
"""Roles of `conversations` columns, in the words of `messages`."""

KINDS = {type(None): "null", bool: "true or false", int: "number", float: "number", list: "list", dict: "object"}
"""What a value is called where a text was looked for."""


def conversation(record: Record, answers: bool = True) -> Chat | None:
    """The row as a chat, None when it is none; without `answers` a question is enough, and its answer is not read.

    Raises DataError, without the row's place, for columns that are no chat.
    """
    row = record.row
    name = next((name for name in CHAT_COLUMNS if _listed(row.get(name)) is not None), None)
    turns, columns = (_listed(row[name]) or [], {name}) if name is not None else _asked(row, answers)
    if not columns:
        return None
    messages = [_message(turn, number) for number, turn in enumerate(turns, 1)]
    if says(row.get("system")):
        messages = [_system(row["system"], messages), *messages]
    untaught = frozenset(turn for turn, message in enumerate(messages) if _weight(message, turn) == 0)
    return Chat(messages, _tools(row), untaught, frozenset({*columns, "system", "tools"}))


def unread_columns(row: dict[str, Any], read: Collection[str], answers: bool = True) -> list[str]:
    """Columns with something in them that are not `read`; without `answers`, those that hold answers do not count."""
    known = {*read, *LABELS, *(() if answers else (*RESPONSE_COLUMNS, *GIVEN_COLUMNS))}
    return sorted(plain_name(name) for name, value in row.items() if name not in known and says(value))


def columns_of(row: dict[str, Any]) -> str:
    """The columns of a row by name, and what those hold that are no text, for a message."""
    kinds = {name: "" if isinstance(row[name], str) else f" ({_kind(row[name])})" for name in sorted(row)}
    return ", ".join(f"{plain_name(name)}{kind}" for name, kind in kinds.items()) or "none"


def plain_name(name: str) -> str:
    """A name as it is, in quotes where it is empty or has spaces around it that nobody would see."""
    return name if name and name == name.strip() else repr(name)


def _kind(value: Any) -> str:
    return next((words for kind, words in KINDS.items() if isinstance(value, kind)), type(value).__name__)


def _asked(row: dict[str, Any], answers: bool) -> tuple[list[Any], set[str]]:
    """The turns of a row with a question and perhaps an answer, and the columns they are from; nothing for others."""
    asked, answer = _named(row, PROMPT_COLUMNS), _named(row, RESPONSE_COLUMNS)
    if asked is None or (answers and answer is None):
        return [], set()
    turns = [*_history(row), *_as_turns(_text_or_turns(row[asked]), "user", row.get("input"))]
    if answers and answer is not None:
        return [*turns, *_as_turns(_text_or_turns(row[answer]), "assistant")], {asked, answer, "input", "history"}
    return turns, {asked, "input", "history"}


def _named(row: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((name for name in names if _text_or_turns(row.get(name)) is not None), None)


def _text_or_turns(value: Any) -> Any:
    """A text, or a list of messages; None for anything else. A text that is JSON of messages is their list."""
    turns = _listed(value)
    if turns is not None and all(isinstance(turn, dict) and {"role", "from"} & turn.keys() for turn in turns):
        return turns or None
    return value if isinstance(value, str) else None


def _listed(value: Any) -> list[Any] | None:
    """A list, or the list that a text is JSON of."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _as_turns(said: Any, role: str, more: Any = None) -> list[Any]:
    if not isinstance(said, str):
        return list(said)
    return [{"role": role, "content": f"{said}\n{more}" if isinstance(more, str) and more else said}]


def _history(row: dict[str, Any]) -> list[Message]:
    """Earlier turns of an Alpaca row: pairs of question and answer."""
    pairs = _listed(row.get("history")) or []
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise DataError("history is no list of pairs, a question and its answer each; mend or remove it")
    return [{"role": role, "content": said} for pair in pairs for role, said in zip(("user", "assistant"), pair)]


def _system(said: Any, messages: list[Message]) -> Message:
    if not isinstance(said, str):
        raise DataError(f"system is {type(said).__name__}, not text; mend or remove it")
    if messages and messages[0]["role"] == "system":
        raise DataError("it has a system column and a system message; keep one of them")
    return {"role": "system", "content": said}


def _tools(row: dict[str, Any]) -> list[Any] | None:
    value = row.get("tools")
    tools = _listed(value)
    if tools is None and says(value):
        raise DataError("tools is no list of tools, nor JSON of one; mend or remove it")
    return tools or None


def _message(said: Any, number: int) -> Message:
    """One turn with a role and a content, both text, and its other fields as they are. Raises DataError."""
    message = {key: value for key, value in said.items() if value is not None} if isinstance(said, dict) else {}
    if "role" not in message and isinstance(speaker := message.pop("from", None), str):
        message["role"] = SPEAKERS.get(speaker, speaker)
        message["content"] = message.pop("value", None)
        if speaker == "function_call":
            message |= {"content": "", "tool_calls": [{"type": "function", "function": message["content"]}]}
    if "tool_calls" in message:
        message["tool_calls"] = _calls(message["tool_calls"], number)
    content = _content(message.get("content"), number)
    others = any(says(value) for name, value in message.items() if name not in ("role", "content", "weight"))
    content = "" if content is None and others else content
    if not isinstance(message.get("role"), str) or content is None:
        raise DataError(f"message {number} needs a role and a content, both text; mend or remove it")
    return message | {"content": content}


def _content(content: Any, number: int) -> str | None:
    """Text, or the text of all parts; None for none. Raises DataError for parts that are no text."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("text"), str) or part.get("type", "text") != "text":
            kind = part.get("type", "?") if isinstance(part, dict) else type(part).__name__
            raise DataError(f"message {number} has a part of type {kind}, and only text is read; remove it")
    return "".join(part["text"] for part in content)


def _calls(calls: Any, number: int) -> list[Any]:
    """Tool calls whose arguments are objects: templates write them as JSON, and a text would be quoted once more."""
    listed = _listed(calls)
    if listed is None or not all(isinstance(call, dict) for call in listed):
        raise DataError(f"message {number} has tool_calls that are no list of calls; mend or remove them")
    return [_call(call, number) for call in listed]


def _call(call: dict[str, Any], number: int) -> dict[str, Any]:
    function = call.get("function", call)
    try:
        function = json.loads(function) if isinstance(function, str) else function
        if isinstance(function.get("arguments"), str):
            function = function | {"arguments": json.loads(function["arguments"] or "{}")}
    except (ValueError, RecursionError, AttributeError):
        raise DataError(f"message {number} calls a tool with what is no JSON; mend or remove it") from None
    return call | {"function": function} if "function" in call else function


def _weight(message: Message, turn: int) -> int:
    """Takes `weight` out of a message: 1, or 0 for a turn without loss."""
    weight = message.pop("weight", 1)
    if weight not in (0, 1):
        raise DataError(f"message {turn + 1} has weight {weight!r}, and a turn is taught (1) or not (0); mend it")
    return int(weight)
