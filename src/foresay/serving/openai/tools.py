"""Tool calls in the form that the model's own chat template gives them: found by having it write one."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from foresay.data.chat import REFUSALS
from foresay.foundation.errors import PromptError

NAME, KEY, VALUE, SAID = "a_tool_of_that_name", "one_argument", "its_value", "something_that_is_said"
CALL = {"name": NAME, "arguments": {KEY: VALUE}}
SPACING = {"whitespace_flexible": False, "key_separator": ": ", "item_separator": ", "}
"""Of the JSON of arguments that must come, as templates write it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that an answer made."""

    name: str
    arguments: str
    """JSON."""
    index: int = 0
    """Which of the answer's calls it is."""
    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a template writes calls: `begin` {"name": ..., "arguments": ...} `between` {...} `end`."""

    begin: str
    end: str
    between: str | None
    """None: there is only one call in an answer."""
    name_key: str
    arguments_key: str
    as_text: bool = False
    """Arguments stand as a string of JSON."""
    special: bool = False
    """Some of it is special tokens, which text leaves out."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, tools: Sequence[dict[str, Any]]) -> "ToolFormat":
        """Of this tokenizer's template. Raises PromptError for one that writes no JSON object for a call."""
        return _format(tokenizer, str(tokenizer.chat_template), json.dumps(tools))

    def call(self, text: str) -> ToolCall | None:
        """The call that a JSON object is, its arguments as they are written; None: it is none."""
        members = _members(text)
        name = json.loads(members.get(self.name_key, "null"))
        written = members.get(self.arguments_key, "{}")
        arguments = json.loads(written) if written.startswith('"') else written
        # Half a character, which JSON can escape, could not be sent as a name.
        return ToolCall(name, arguments) if isinstance(name, str) and _is_whole(name + arguments) else None

    def grammar(self, tools: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, many: bool) -> str:
        """A Lark grammar of an answer that calls one of `tools`, or several where there may be many."""
        if self.as_text:
            raise PromptError(
                "this model's template writes arguments as text, which no schema can hold; leave tool_choice at auto"
            )
        rules = [self._rule(place, tool["function"]) for place, tool in enumerate(tools)]
        begin, end = (_literal(tokenizer, text) for text in (self.begin, self.end))
        between = "" if self.between is None or not many else f" ({_literal(tokenizer, self.between)} call)*"
        call = " | ".join(f"call_{place}" for place in range(len(tools)))
        return "\n".join([f"start: {begin} call{between} {end}", f"call: {call}", *rules])

    def _rule(self, place: int, function: dict[str, Any]) -> str:
        """A call of a function. Its arguments are a schema of their own, for references in it begin at its root."""
        name_key, name, key = (
            json.dumps(text, ensure_ascii=False) for text in (self.name_key, function["name"], self.arguments_key)
        )
        opening = json.dumps(f"{{{name_key}: {name}, {key}: ")
        schema = {"type": "object", **(function.get("parameters") or {}), "x-guidance": SPACING}
        return f'call_{place}: {opening} arguments_{place} "}}"\narguments_{place}: %json {json.dumps(schema)}'


class ToolReader:
    """Takes the calls out of a text that comes in pieces."""

    def __init__(self, form: ToolFormat, many: bool = True) -> None:
        """`many`: more than one call is wanted."""
        self._form, self._many = form, many
        self._marks = [mark.strip() for mark in (form.begin, form.end, form.between or "")]
        self._held = ""
        self._state = "content"
        self.calls = 0
        self._steps = {"content": self._say, "call": self._call, "after": self._close, "text": self._text}
        self.cut = False
        """The text ended inside a call."""

    def read(self, text: str, ended: str | None) -> tuple[str, list[ToolCall]]:
        """More of the text, or its end: what of it is no call, and the calls that it completes."""
        self._held += text
        content, calls = "", list[ToolCall]()
        while True:
            before = (self._state, self._held)
            said, call = self._steps[self._state]()
            content += said
            if call is not None and (self._many or not self.calls):
                calls.append(replace(call, index=self.calls))
                self.calls += 1
            if (self._state, self._held) == before:
                break
        if ended:
            self.cut = ended == "length" and self._state == "call"
            content += (
                self._as_text()
                if self._state == "call"
                else self._held.rstrip()
                if self._state == "after"
                else self._held
            )
            self._held = ""
        return content, calls

    def _say(self) -> tuple[str, None]:
        """Text up to where a call begins, or may begin."""
        begin = self._marks[0]
        if not begin:
            return self._begin_bare()
        place = self._held.find(begin)
        if place >= 0:
            said, self._held, self._state = self._held[:place], self._held[place + len(begin) :], "call"
            return said.rstrip(), None
        most = min(len(begin) - 1, len(self._held))
        keep = next((size for size in range(most, 0, -1) if begin.startswith(self._held[-size:])), 0)
        # Space may stand before a call, which then is no part of the content.
        said = self._held[: len(self._held) - keep].rstrip()
        self._held = self._held[len(said) :]
        return said, None

    def _begin_bare(self) -> tuple[str, None]:
        """Where a template puts no mark before a call, an answer that begins with an object is one."""
        started = self._held.lstrip()
        if started:
            self._state = "call" if started.startswith("{") and not self.calls else "text"
        return "", None

    def _text(self) -> tuple[str, None]:
        """No call comes any more."""
        said, self._held = self._held, ""
        return said, None

    def _call(self) -> tuple[str, ToolCall | None]:
        """An object, once it is whole; what is none is text."""
        started = self._held.lstrip()
        if not started:
            return "", None
        try:
            found, end = json.JSONDecoder().raw_decode(started)
        except ValueError:
            if started.startswith("{"):
                return "", None  # not whole yet, or never
            return self._as_text(), None
        call = self._form.call(started[:end]) if isinstance(found, dict) else None
        if call is None:
            return self._as_text(), None
        self._held, self._state = started[end:], "after"
        return "", call

    def _as_text(self) -> str:
        said, self._held, self._state = self._marks[0] + self._held, "", "content" if self._marks[0] else "text"
        return said

    def _close(self) -> tuple[str, None]:
        """What follows a call: its end, or what stands before another one."""
        _, end, between = self._marks
        rest = self._held.lstrip()
        for mark, state in ((end, "content"), (between, "call")):
            if mark and rest.startswith(mark) and not (state == "call" and end and mark.startswith(end)):
                self._held, self._state = rest[len(mark) :], state
                return "", None
        if rest and not any(mark.startswith(rest) for mark in (end, between) if mark):
            self._state = "content" if self._marks[0] else "text"
        return "", None


@lru_cache(maxsize=32)
def _format(tokenizer: PreTrainedTokenizerBase, template: str, tools: str) -> ToolFormat:
    known = json.loads(tools)
    one = _written(tokenizer, known, 1)
    decoder = json.JSONDecoder()
    for start in (place for place, letter in enumerate(one) if letter == "{"):
        try:
            found, end = decoder.raw_decode(one, start)
        except ValueError:
            continue
        keys = {json.dumps(value): key for key, value in found.items()}
        arguments, text = keys.get(json.dumps(CALL["arguments"])), keys.get(json.dumps(json.dumps(CALL["arguments"])))
        name = keys.get(json.dumps(NAME))
        if name and (arguments or text):
            begin, close = one[:start], one[end:]
            between = _between(tokenizer, known, begin, close)
            marks = tokenizer(f"{begin}{between or ''}{close}", add_special_tokens=False)["input_ids"]
            special = bool({*marks} & {*tokenizer.all_special_ids})
            return ToolFormat(begin, close, between, name, arguments or text or "", not arguments, special)
    raise PromptError(
        "the model's chat template writes tool calls in a form that is no JSON object, which is not read here; leave "
        "tools out, or describe them in the system message"
    )


def _between(tokenizer: PreTrainedTokenizerBase, tools: list[Any], begin: str, end: str) -> str | None:
    """What stands between two calls; None where the template takes one alone."""
    try:
        two = _written(tokenizer, tools, 2)
    except PromptError:
        return None
    inner = two.removeprefix(begin).removesuffix(end)
    _, first = json.JSONDecoder().raw_decode(inner)
    # Two calls may differ in their id: the second one ends where the text does.
    starts = (place for place in range(first, len(inner)) if inner[place] == "{")
    return next((inner[first:place] for place in starts if _is_json(inner[place:])), None)


def _members(text: str) -> dict[str, str]:
    """The values of a JSON object by their keys, each as it is written: to read a number may lose digits of it."""
    decoder, members, place = json.JSONDecoder(), dict[str, str](), 1
    while text[begin := _past_marks(text, place)] != "}":
        key, place = decoder.raw_decode(text, begin)
        begin = _past_marks(text, place)
        _, place = decoder.raw_decode(text, begin)
        members[key] = text[begin:place]
    return members


def _past_marks(text: str, place: int) -> int:
    """The first place from `place` on that is neither white space nor a mark between two parts of an object."""
    return next(at for at in range(place, len(text)) if text[at] not in " \t\n\r,:")


def _is_whole(text: str) -> bool:
    """There is no half of a character in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _written(tokenizer: PreTrainedTokenizerBase, tools: list[Any], calls: int) -> str:
    """What the template writes as an answer of so many calls. Raises PromptError where it takes none."""
    asked = [{"role": "user", "content": "?"}]
    made = [{"id": f"callnumb{n}", "type": "function", "function": CALL} for n in range(calls)]

    def text(*messages: dict[str, Any], prompt: bool = False) -> str:
        return str(
            tokenizer.apply_chat_template(
                [*asked, *messages], tools=tools, tokenize=False, add_generation_prompt=prompt
            )
        )

    try:
        opened = text(prompt=True)
        whole = text({"role": "assistant", "content": "", "tool_calls": made})
        after = text({"role": "assistant", "content": SAID}).partition(SAID)[2]
    except REFUSALS as error:
        raise PromptError("the model's chat template does not take tool calls; leave tools out") from error
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(opened, whole)))
    return whole[same:].removesuffix(after)


def _literal(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A text in a Lark grammar; special tokens by their number."""
    special = {*tokenizer.all_special_ids}
    parts, plain = [], list[int]()
    for token in [*(tokenizer(text, add_special_tokens=False)["input_ids"] if text else []), None]:
        if token in special or token is None:
            parts += [json.dumps(tokenizer.decode(plain))] if plain else []
            parts += [] if token is None else [f"<[{token}]>"]
            plain = []
        else:
            plain.append(token)
    return " ".join(parts)
