"""Every field of a chat reaches the template, or is counted or refused by name; training and prompts read alike."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from foresay.data.chat import Chat
from foresay.data.columns import conversation
from foresay.data.corpus import Report, encoded
from foresay.data.encoder import Encoder
from foresay.data.example import Example
from foresay.data.prompts import Prompt, file_prompts, unread_of
from foresay.data.records import Record
from foresay.data.source import Source
from foresay.foundation.errors import DataError
from foresay.models.base.load import load_tokenizer

STOP = "<|endoftext|>"
# A template that renders thoughts, tools and calls, as Qwen 3's does.
QWEN = (
    "{% if tools %}TOOLS {{ tools | tojson }}{% endif %}{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m['content'] }}"
    "{% for call in m.tool_calls or [] %}CALL {{ call.function.name }} {{ call.function.arguments | tojson }}"
    "{% endfor %}{% if m['role'] == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# One that raises on what it has no place for, as Gemma's does.
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}"
    "<|endoftext|>{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
HI = {"role": "user", "content": "Hi there."}


def calling(arguments: Any = None, content: Any = "") -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": {"city": "Ulm"} if arguments is None else arguments}
    return {"role": "assistant", "content": content, "tool_calls": [{"type": "function", "function": function}]}


CALLS = [HI, calling(), {"role": "tool", "content": "sunny"}, {"role": "assistant", "content": "It is sunny today."}]


def tokenizer_with(template: str | None) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer("nano")
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def qwen() -> PreTrainedTokenizerBase:
    return tokenizer_with(QWEN)


@pytest.fixture(scope="module")
def gemma() -> PreTrainedTokenizerBase:
    return tokenizer_with(GEMMA)


@pytest.fixture(scope="module")
def nano() -> PreTrainedTokenizerBase:
    return load_tokenizer("nano")


def examples(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any], vocabulary: int = 0) -> list[Example]:
    return list(Encoder(tokenizer, 256, vocabulary=vocabulary).encode(Record("here:1", row)).examples)


def counted(path: Path, tokenizer: PreTrainedTokenizerBase) -> Report:
    report = Report(path.name, "")
    list(encoded(Source(str(path)), Encoder(tokenizer, 256), report, strict=False))
    return report


def taught(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]) -> list[str]:
    """What carries loss, example by example."""
    return [
        tokenizer.decode([token for token, said in zip(example.ids, example.answer) if said])
        for example in examples(tokenizer, row)
    ]


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompt(folder: Path, tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]) -> Prompt:
    [found] = file_prompts(written(folder, row), tokenizer)
    return found


def rendered(tokenizer: PreTrainedTokenizerBase, messages: list[Any], **more: Any) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **more)["input_ids"]
    return ids


# Fields.


def test_thoughts_are_taught_as_transformers_renders_them(qwen: PreTrainedTokenizerBase) -> None:
    messages = [HI, {"role": "assistant", "reasoning_content": "two and two", "content": "It is four."}]
    [example] = examples(qwen, {"messages": messages})
    assert list(example.ids) == rendered(qwen, messages)
    assert taught(qwen, {"messages": messages}) == [f"<think>two and two</think>It is four.{STOP}"]


def test_tool_calls_are_taught_as_transformers_renders_them(qwen: PreTrainedTokenizerBase) -> None:
    [example] = examples(qwen, {"messages": CALLS, "tools": [TOOL]})
    assert list(example.ids) == rendered(qwen, CALLS, tools=[TOOL])
    assert taught(qwen, {"messages": CALLS, "tools": [TOOL]}) == [
        f'CALL get_weather {{"city": "Ulm"}}{STOP}It is sunny today.{STOP}'
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [HI, calling('{"city": "Ulm"}'), *CALLS[2:]], "tools": [TOOL]},
        {"messages": [HI, calling(content=None), *CALLS[2:]], "tools": [TOOL]},
        {"messages": [{**message, "reasoning_content": None} for message in CALLS], "tools": json.dumps([TOOL])},
        {"messages": json.dumps(CALLS), "tools": json.dumps([TOOL])},
        {"prompt": CALLS[:3], "completion": CALLS[3:], "tools": [TOOL]},
        {
            "conversations": [
                {"from": "human", "value": "Hi there."},
                {"from": "function_call", "value": '{"name": "get_weather", "arguments": {"city": "Ulm"}}'},
                {"from": "observation", "value": "sunny"},
                {"from": "gpt", "value": "It is sunny today."},
            ],
            "tools": [TOOL],
        },
    ],
    ids=["arguments as text", "content null", "nulls of a table", "JSON text", "TRL", "ShareGPT"],
)
def test_other_spellings_of_the_same_chat(qwen: PreTrainedTokenizerBase, row: dict[str, Any]) -> None:
    assert examples(qwen, row) == examples(qwen, {"messages": CALLS, "tools": [TOOL]})


def test_what_a_template_does_not_render_is_counted_by_name(tmp_path: Path, nano: PreTrainedTokenizerBase) -> None:
    said = {"role": "assistant", "reasoning_content": "hm", "content": "Hello my dear friend."}
    report = counted(written(tmp_path, {"messages": [HI, said], "tools": [TOOL], "id": 7, "note": None}), nano)
    assert report.unread == {"id": 1, "reasoning_content": 1, "tools": 1}
    assert "not used: id (1 rows), reasoning_content (1 rows), tools (1 rows)" in report.sentence


def test_empty_fields_are_not_missed(tmp_path: Path, nano: PreTrainedTokenizerBase) -> None:
    said = {"role": "assistant", "content": "Hello my dear friend.", "tool_calls": [], "annotations": [], "audio": {}}
    assert counted(written(tmp_path, {"messages": [HI, said]}), nano).unread == {}


def test_answer_of_nothing_but_unrendered_fields_is_refused(nano: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match=r"here:1: message 2 says nothing but tool_calls, which the chat template does"):
        examples(nano, {"messages": CALLS})


def test_parts_are_joined_and_pictures_refused(nano: PreTrainedTokenizerBase) -> None:
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there."}]
    said = {"role": "assistant", "content": "Hello my friend."}
    row = {"messages": [{"role": "user", "content": parts}, said]}
    assert examples(nano, row) == examples(nano, {"messages": [HI, said]})
    with pytest.raises(DataError, match=r"message 1 has a part of type image_url, and only text is read"):
        examples(nano, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, said]})


@pytest.mark.parametrize("template", [QWEN, MARKED, None], ids=["prefixes", "markers", "joined"])
def test_turns_of_weight_zero_carry_no_loss(template: str | None) -> None:
    tokenizer = tokenizer_with(template)
    first, second = ({"role": "assistant", "content": f"I say {word} now."} for word in ("one", "two"))
    row = {"messages": [HI, first | {"weight": 0}, HI, second | {"weight": 1}]}
    assert taught(tokenizer, row) == [f"I say two now.{STOP}"]
    [weighed], [plain] = examples(tokenizer, row), examples(tokenizer, {"messages": [HI, first, HI, second]})
    assert weighed.ids == plain.ids
    with pytest.raises(DataError, match=r"message 2 has weight 0.5"):
        examples(tokenizer, {"messages": [HI, first | {"weight": 0.5}]})


# Columns.


def test_system_input_and_history_stand_in_front(tmp_path: Path, nano: PreTrainedTokenizerBase) -> None:
    row = {"instruction": "And now?", "input": "Say.", "output": "It is fine.", "system": "Be a pirate."}
    row |= {"history": [["First?", "Second."]]}  # type: ignore[dict-item]
    messages = [
        {"role": "system", "content": "Be a pirate."},
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "Second."},
        {"role": "user", "content": "And now?\nSay."},
        {"role": "assistant", "content": "It is fine."},
    ]
    [example] = examples(nano, row)
    assert list(example.ids) == rendered(nano, messages)
    assert prompt(tmp_path, nano, row).ids == tuple(rendered(nano, messages[:-1], add_generation_prompt=True))


def test_system_column_of_sharegpt(nano: PreTrainedTokenizerBase) -> None:
    turns = [{"from": "human", "value": "Hi there."}, {"from": "gpt", "value": "Hello my friend."}]
    system = {"from": "system", "value": "Be a pirate."}
    assert examples(nano, {"system": "Be a pirate.", "conversations": turns}) == examples(
        nano, {"conversations": [system, *turns]}
    )
    with pytest.raises(DataError, match="a system column and a system message; keep one"):
        examples(nano, {"system": "Be a pirate.", "conversations": [system, *turns]})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [HI, "oops"]}, "message 2 needs a role and a content"),
        ({"messages": [{"from": ["x"], "value": "hi"}]}, "message 1 needs a role and a content"),
        ({"messages": [HI, calling("{")]}, "message 2 calls a tool with what is no JSON"),
        ({"messages": [HI, {"role": "assistant", "tool_calls": 3}]}, "message 2 has tool_calls that are no list"),
        ({"messages": CALLS, "tools": {"a": 1}}, "tools is no list of tools"),
        ({"prompt": "a", "response": "b c d", "history": ["a"]}, "history is no list of pairs"),
        ({"prompt": "a", "response": "b c d", "system": 3}, "system is int, not text"),
        ({"ids": [1, 2, 3], "prompt_tokens": -2}, "ids or prompt_tokens that are no ids"),
        ({"ids": [1, 2, 3], "prompt_tokens": 99}, "ids or prompt_tokens that are no ids"),
        ({"ids": [True, False, 1, 2]}, "ids or prompt_tokens that are no ids"),
        ({"text": ["a", "b"]}, r"it has columns text \(list\); needed are messages"),
        ({"prompt": 5, "response": None}, r"it has columns prompt \(number\), response \(null\); needed are messages"),
        ({" text": "a b"}, "it has columns ' text'; needed are messages"),
        ({"messages": [HI, {"role": "Bot", "content": "x y"}]}, r"there is no assistant message \(roles: user, Bot\)"),
        ({"messages": [HI], "ids": ["a"]}, "or remove the column ids, and the text is read"),
    ],
)
def test_columns_of_another_kind_are_bad_rows(nano: PreTrainedTokenizerBase, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"here:1: .*{message}"):
        examples(nano, row)


# Templates and tokenizers that refuse.

SYSTEM = {"messages": [{"role": "system", "content": "Be terse."}, HI, {"role": "assistant", "content": "Hello you."}]}
TWICE = {"messages": [HI, HI, {"role": "assistant", "content": "Hello you."}]}


@pytest.mark.parametrize(("row", "why"), [(SYSTEM, "System role not supported"), (TWICE, "roles must alternate")])
def test_template_that_raises_makes_a_bad_row(
    tmp_path: Path, gemma: PreTrainedTokenizerBase, row: dict[str, Any], why: str
) -> None:
    good = {"prompt": "Hi.", "response": "Hello my friend."}
    report = counted(written(tmp_path, good, row), gemma)
    assert (report.bad, report.examples) == (1, 1)
    assert why in report.complaints[0]
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: the chat template refuses the messages \(.*{why}"):
        prompt(tmp_path, gemma, row)


def test_answer_to_nothing_is_context_and_not_taught(tmp_path: Path, nano: PreTrainedTokenizerBase) -> None:
    opening, said = ({"role": "assistant", "content": text} for text in ("Welcome, my friend.", "Hello my friend."))
    assert taught(nano, {"messages": [opening, HI, said]}) == [f"Hello my friend.{STOP}"]
    with pytest.raises(DataError, match="no answer of it is taught"):
        examples(nano, {"messages": [opening]})
    with pytest.raises(DataError, match=r"rows\.jsonl:1: there is no message before the answer"):
        prompt(tmp_path, nano, {"messages": [opening]})


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a \ud83d b", "response": "c d e f"},
        {"text": "a half \udc00 here"},
        {"prompt": "a", "response": "c d e", "domain": "ma\ud83dth"},
        {"messages": [HI, {"role": "assistant", "content": "half \ud83d here"}]},
    ],
    ids=["prompt", "text", "domain", "message"],
)
def test_half_a_character_makes_a_bad_row(tmp_path: Path, nano: PreTrainedTokenizerBase, row: dict[str, Any]) -> None:
    whole = {"prompt": "A smile \U0001f600?", "response": "It is a smile \U0001f600."}
    report = counted(written(tmp_path, whole, row), nano)
    assert (report.bad, report.examples) == (1, 1)
    assert report.complaints[0].startswith(f"{tmp_path}/rows.jsonl:2 holds half a character")
    with pytest.raises(DataError, match=r"rows\.jsonl:1 holds half a character"):
        prompt(tmp_path, nano, row)


def test_token_beyond_the_embeddings_makes_a_bad_row(nano: PreTrainedTokenizerBase) -> None:
    tokenizer = load_tokenizer("nano")
    tokenizer.add_tokens("<|tool|>")
    good, bad = {"prompt": "Hi.", "response": "Hello you all."}, {"prompt": "Hi.", "response": "<|tool|> you all."}
    assert examples(tokenizer, good, 4096) == examples(nano, good)
    with pytest.raises(DataError, match="here:1: token 4096 stands in it and the base knows 0 to 4095"):
        examples(tokenizer, bad, 4096)
    assert examples(tokenizer, bad, 4097)


def test_tokenizer_that_closes_texts_closes_no_prompt(tmp_path: Path, nano: PreTrainedTokenizerBase) -> None:
    """As `TemplateProcessing("<eos> $A <eos>")` does."""
    from tokenizers.processors import TemplateProcessing  # noqa: PLC0415

    closing, bare = load_tokenizer("nano"), tokenizer_with(None)
    closing.chat_template, stop = None, closing.eos_token_id
    processor = TemplateProcessing(single=f"{STOP} $A {STOP}", special_tokens=[(STOP, stop)])
    closing.backend_tokenizer.post_processor = processor
    for row in ({"text": "Once upon a time."}, {"prompt": "How much?", "response": "It is four."}):
        [closed], [plain] = examples(closing, row), examples(bare, row)
        assert closed.ids == (stop, *plain.ids)
    assert prompt(tmp_path, closing, {"text": "Once upon"}).ids == (
        stop,
        *prompt(tmp_path, bare, {"text": "Once upon"}).ids,
    )


# One path.


def test_prompts_hold_what_training_holds(tmp_path: Path, qwen: PreTrainedTokenizerBase) -> None:
    row = {"messages": CALLS, "tools": [TOOL], "id": 3}
    found = prompt(tmp_path, qwen, row)
    assert list(found.ids) == rendered(qwen, CALLS[:-1], tools=[TOOL], add_generation_prompt=True)
    assert unread_of([found]) == "of the prompts' rows not used: id (1 rows)"


def test_answers_are_not_read_for_prompts(tmp_path: Path, nano: PreTrainedTokenizerBase) -> None:
    assert prompt(tmp_path, nano, {"question": "Hi there.", "answer": 3, "domain": "math"}).unread == ()
    assert conversation(Record("", {"question": "Hi there."})) is None
    asked = conversation(Record("", {"question": "Hi there."}), answers=False)
    assert isinstance(asked, Chat)
    assert asked.messages == [HI]
