"""Tools: how a template writes calls is found out by having it write one, and answers are read accordingly."""

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")
pytest.importorskip("llguidance")

import openai
from transformers import PreTrainedTokenizerBase

from foresay.decoding.config import QueueConfig
from foresay.foundation.errors import PromptError
from foresay.model import MultiTokenModel
from foresay.serving.openai.tools import ToolFormat, ToolReader
from tests.support.served import ASKED, DECODE, Served, refused, served
from tests.support.templates import BARE, CODE, LISTED, MARKED

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {key: {"type": "string", "maxLength": 8}, "days": {"type": "integer"}},
                "required": [key],
                "additionalProperties": False,
            },
        },
    }
    for name, key in (("weather", "city"), ("news", "topic"))
]


def with_template(template: str) -> MultiTokenModel:
    model = MultiTokenModel.from_pretrained("nano")
    model.tokenizer = deepcopy(model.require_tokenizer())
    model.tokenizer.chat_template = template
    return model


@pytest.fixture(scope="module")
def marked() -> Iterator[Served]:
    with served(with_template(MARKED), replace(DECODE, max_new_tokens=80), QueueConfig(sequences=2)) as running:
        yield running


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return deepcopy(MultiTokenModel.from_pretrained("nano").require_tokenizer())


def form(tokenizer: PreTrainedTokenizerBase, template: str) -> ToolFormat:
    tokenizer.chat_template = template
    return ToolFormat.of(tokenizer, TOOLS)


def test_the_form_of_calls_is_the_templates(tokenizer: PreTrainedTokenizerBase) -> None:
    found = form(tokenizer, MARKED)
    assert (found.begin, found.end) == ("\n<tool_call>\n", "\n</tool_call>") or found.begin == "<tool_call>\n"
    assert (found.name_key, found.arguments_key) == ("name", "arguments")
    assert found.between is not None
    assert "</tool_call>\n<tool_call>" in found.between
    found = form(tokenizer, BARE)
    assert (found.begin, found.end, found.between, found.arguments_key) == ("", "", None, "parameters")
    found = form(tokenizer, LISTED)
    assert (found.begin.strip(), found.between, found.end) == ("[TOOL_CALLS] [", ", ", "]")
    with pytest.raises(PromptError, match="writes tool calls in a form that is no JSON object"):
        form(tokenizer, CODE)


ROME, OSLO = '{"city": "Rome"}', '{"city": "Oslo", "days": 2}'
TEXTS: dict[str, tuple[str, str, str, list[str]]] = {
    "one": (MARKED, f'<tool_call>\n{{"name": "weather", "arguments": {ROME}}}\n</tool_call>', "", [ROME]),
    "text before two": (
        MARKED,
        f'Let me see.\n<tool_call>{{"name": "weather", "arguments": {ROME}}}</tool_call>\n\n<tool_call>\n'
        f'{{"arguments": {OSLO}, "name": "weather"}}\n</tool_call>',
        "Let me see.",
        [ROME, OSLO],
    ),
    "no call": (MARKED, "It is < 5 <tool", "It is < 5 <tool", []),
    "no object": (MARKED, "<tool_call>\nRome", "<tool_call>\nRome", []),
    "never whole": (MARKED, '<tool_call>\n{"name": "wea', '<tool_call>\n{"name": "wea', []),
    "bare": (BARE, f'{{"name": "weather", "parameters": {ROME}}}', "", [ROME]),
    "bare text": (BARE, 'It is {"name": 1}', 'It is {"name": 1}', []),
    "bare other object": (BARE, '{"city": 1} or so', '{"city": 1} or so', []),
    "a list": (
        LISTED,
        f'[TOOL_CALLS] [{{"name": "weather", "arguments": {ROME}, "id": "1"}}, '
        f'{{"name": "weather", "arguments": {OSLO}}}]',
        "",
        [ROME, OSLO],
    ),
}


@pytest.mark.parametrize("pieces", [1, 2, 5, 1000])
@pytest.mark.parametrize("name", TEXTS)
def test_calls_are_taken_out_of_a_text_in_pieces(name: str, pieces: int, tokenizer: PreTrainedTokenizerBase) -> None:
    template, text, content, arguments = TEXTS[name]
    reader = ToolReader(form(tokenizer, template))
    read = [reader.read(text[place : place + pieces], None) for place in range(0, len(text), pieces)]
    read.append(reader.read("", "stop"))
    assert "".join(said for said, _ in read) == content
    calls = [call for _, some in read for call in some]
    assert [json.loads(call.arguments) for call in calls] == [json.loads(some) for some in arguments]
    assert {call.name for call in calls} <= {"weather"}
    assert [call.index for call in calls] == list(range(len(calls)))
    assert len({call.id for call in calls}) == len(calls)
    assert not reader.cut


@pytest.mark.parametrize(
    "written",
    ['{"n": 0.10000000000000000555, "m": 1e999}', r'{"city": "\ud83d"}', '{"a": 1, "a": [2, {"b": "}"}]}', "{}", "3"],
)
def test_arguments_stay_as_they_are_written(written: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Read and written again, a number loses digits, and half a character could not be sent at all."""
    for call in (f'{{"name": "news", "arguments": {written}}}', f'{{ "arguments" :{written} ,"name":"news" }}'):
        [made] = ToolReader(form(tokenizer, MARKED)).read(f"<tool_call>{call}</tool_call>", "stop")[1]
        assert (made.name, made.arguments) == ("news", written)
    bare = '<tool_call>{"name": "news"}</tool_call>'
    assert ToolReader(form(tokenizer, MARKED)).read(bare, "stop")[1][0].arguments == "{}"


def test_a_name_that_cannot_be_sent_is_no_call(tokenizer: PreTrainedTokenizerBase) -> None:
    text = r'<tool_call>{"name": "\ud83d", "arguments": {}}</tool_call>'
    assert ToolReader(form(tokenizer, MARKED)).read(text, "stop") == (text, [])


def test_a_call_that_ends_too_soon_is_known(tokenizer: PreTrainedTokenizerBase) -> None:
    for text, cut in (('<tool_call>\n{"name": "wea', True), ("Well", False), ('<tool_call>{"name": "a"}', False)):
        reader = ToolReader(form(tokenizer, MARKED))
        reader.read(text, "length")
        assert reader.cut == cut, text


def test_at_most_one_call_where_one_is_wanted(tokenizer: PreTrainedTokenizerBase) -> None:
    _, calls = ToolReader(form(tokenizer, LISTED), many=False).read(TEXTS["a list"][1], "stop")
    assert [json.loads(call.arguments) for call in calls] == [json.loads(ROME)]


def test_a_required_call_is_made(marked: Served) -> None:
    asked: dict[str, Any] = {**ASKED, "tools": TOOLS, "tool_choice": "required", "max_tokens": 80}
    choice = marked.client.chat.completions.create(**asked, parallel_tool_calls=False).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls
    assert call.type == "function"
    wanted = {"weather": "city", "news": "topic"}[call.function.name]
    assert isinstance(json.loads(call.function.arguments)[wanted], str)
    # The same in a stream, and as plain decoding makes it.
    *steps, last = marked.client.chat.completions.create(**asked, parallel_tool_calls=False, stream=True)
    deltas = [call for step in [*steps, last] for call in step.choices[0].delta.tool_calls or []]
    assert [(d.index, d.function.name, d.function.arguments) for d in deltas] == [
        (0, call.function.name, call.function.arguments)
    ]
    assert last.choices[0].finish_reason == "tool_calls"
    plain = marked.client.chat.completions.create(**asked, parallel_tool_calls=False, extra_body={"layout": "plain"})
    assert plain.choices[0].message.tool_calls[0].function == call.function


def test_schemas_of_arguments_refer_to_their_own_parts(marked: Served) -> None:
    """As pydantic writes them, with definitions beside the properties; a schema without a type is of an object."""
    day = {"$defs": {"day": {"enum": ["mon", "tüe"]}}, "properties": {"day": {"$ref": "#/$defs/day"}}}
    twice = {"properties": {"from": {"enum": ["mon", "tue"]}, "to": {"$ref": "#/properties/from"}}}
    for parameters, keys in ((day, ["day"]), (twice, ["from", "to"])):
        whole = {**parameters, "required": keys, "additionalProperties": False}
        tool = {"type": "function", "function": {"name": "plän", "parameters": whole}}
        asked: dict[str, Any] = {**ASKED, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": False}
        [call] = marked.client.chat.completions.create(**asked, max_tokens=80, seed=1).choices[0].message.tool_calls
        assert call.function.name == "plän"
        assert list(json.loads(call.function.arguments)) == keys


def test_a_named_call_is_made_and_is_sent_back(marked: Served) -> None:
    named = {"type": "function", "function": {"name": "news"}}
    asked: dict[str, Any] = {**ASKED, "tools": TOOLS, "max_tokens": 80}
    choice = marked.client.chat.completions.create(**asked, tool_choice=named).choices[0]
    assert choice.finish_reason == "stop"
    [call] = choice.message.tool_calls
    assert call.function.name == "news"
    result = {"role": "tool", "tool_call_id": call.id, "content": "nothing new"}
    turns = [*ASKED["messages"], choice.message.model_dump(exclude_none=True), result]  # type: ignore[misc]
    again = marked.client.chat.completions.create(**{**asked, "messages": turns, "max_tokens": 4})
    assert again.usage.prompt_tokens > 60, "the template renders the call, its result and the tools"


def test_what_cannot_be_asked_of_tools_is_refused(marked: Served) -> None:
    body: dict[str, Any] = {**ASKED, "tools": TOOLS}
    named = {"type": "function", "function": {"name": "sports"}}
    for more, match in (
        ({"tool_choice": named}, "names 'sports', and no tool is called so"),
        ({"tools": [], "tool_choice": "required"}, "there are no tools"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "two tools have one name"),
        ({"response_format": {"type": "json_object"}}, "leave out response_format or tools"),
        ({"tool_choice": "required", "max_tokens": 9}, "reached max_tokens inside a tool call; ask for more tokens"),
    ):
        assert match in refused(marked, 400, {**body, **more})["message"]
    with pytest.raises(openai.APIError, match="inside a tool call"):
        list(marked.client.chat.completions.create(**body, tool_choice="required", max_tokens=9, stream=True))
    bad = deepcopy(TOOLS)
    bad[0]["function"]["parameters"] = {"type": "strin"}  # type: ignore[index]
    assert "cannot be followed" in refused(marked, 400, {**body, "tools": bad, "tool_choice": "required"})["message"]


def test_templates_without_tools_are_refused() -> None:
    with served(MultiTokenModel.from_pretrained("nano")) as server:
        assert "template" in refused(server, 400, {**ASKED, "tools": TOOLS})["message"]
        assert server.client.chat.completions.create(**ASKED, tools=[], max_tokens=2).choices
