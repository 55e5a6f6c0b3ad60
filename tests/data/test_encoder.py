"""From files to token ids and loss masks; what cannot be used is refused with file and line."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from foresay.data.columns import PROMPT_COLUMNS, RESPONSE_COLUMNS
from foresay.data.corpus import read
from foresay.data.encoder import Encoder
from foresay.data.example import TEXT_PROMPT_TOKENS, Example
from foresay.data.records import read_records
from foresay.data.source import Source
from foresay.foundation.errors import DataError, LossMaskError
from foresay.models.base.load import load_tokenizer

STOP = "<|endoftext|>"
# A template that forgets the thoughts of turns that are over, as reasoning models' templates do.
FORGETFUL = (
    "{% for m in messages %}<|{{m['role']}}|>"
    "{% if loop.last or m['role'] == 'user' %}{{m['content']}}"
    "{% if m['role'] == 'assistant' %}<|endoftext|>{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# One that opens an answer with something that the answered turn lacks.
THINKING = (
    "{% for m in messages %}<|{{m['role']}}|>{{m['content']}}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>thoughts{% endif %}"
)


# One that marks what is generated; in the right place with nothing before and the stop after.
MARKED = (
    "{{% for m in messages %}}{{% if m['role'] == 'user' %}}<|user|>{{{{m['content']}}}}"
    "{{% else %}}{before}{{{{m['content']}}}}{after}{{% endif %}}{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|assistant|>{{% endif %}}"
)
SAID, OVER = "{% generation %}", "{% endgeneration %}"
UNSTOPPED = (
    "{% for m in messages %}<|{{m['role']}}|>{{m['content']}}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("nano")


@pytest.fixture
def bare() -> PreTrainedTokenizerBase:
    """A tokenizer without a chat template, and one that a test may change."""
    tokenizer = load_tokenizer("nano")
    tokenizer.chat_template = None
    return tokenizer


def write(folder: Path, content: str | bytes, name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_rows(folder: Path, *rows: dict[str, Any]) -> Path:
    return write(folder, "".join(f"{json.dumps(row)}\n" for row in rows))


def answered(tokenizer: PreTrainedTokenizerBase, example: Example) -> str:
    """The tokens that are to be predicted, as text."""
    return tokenizer.decode([token for token, said in zip(example.ids, example.answer) if said])


def chat(*contents: str) -> dict[str, Any]:
    """A conversation whose turns take turns."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[turn % 2], "content": content} for turn, content in enumerate(contents)]}


ROWS = (chat("Count to two.", "One, two."), {"prompt": "Say hi.", "response": "Hi!"}, {"text": "Once upon a time."})


def load_examples(path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Example]:
    return list(read(Source(str(path)), Encoder(tokenizer, max_length), strict=True).examples)


# Files.


def test_json_list_and_lines_say_the_same(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    lines = load_examples(write_rows(tmp_path, *ROWS), tokenizer, 64)
    listed = load_examples(write(tmp_path, json.dumps(ROWS, indent=2), "data.json"), tokenizer, 64)
    assert len(lines) == 3
    assert listed == lines


def test_empty_lines_are_skipped(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    spaced = write(tmp_path, "\n\n".join(json.dumps(row) for row in ROWS) + "\n \n")
    assert len(load_examples(spaced, tokenizer, 64)) == 3


def test_places_are_file_and_line(tmp_path: Path) -> None:
    spaced = write(tmp_path, '{"text": "a"}\n\n{"text": "b"}\n')
    assert [record.place for record in read_records(spaced)] == [f"{spaced}:1", f"{spaced}:3"]
    listed = write(tmp_path, '[{"text": "a"}, {"text": "b"}]')
    assert [record.place for record in read_records(listed)] == [f"{listed}, item 1", f"{listed}, item 2"]


@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_text_file_is_one_long_text(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, suffix: str) -> None:
    text = 'Once upon a time there was a fox.\n{"not": "json"}\nThe end.'
    [example] = load_examples(write(tmp_path, text, f"story{suffix}"), tokenizer, 512)
    assert tokenizer.decode(example.ids) == text + STOP
    assert all(example.answer)
    assert load_examples(write_rows(tmp_path, {"text": text}), tokenizer, 512) == [example]


def test_long_text_is_cut_into_windows_that_lose_nothing(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    text = " ".join(f"number {count}" for count in range(100))
    path = write(tmp_path, text, "long.txt")
    [whole] = load_examples(path, tokenizer, 10_000)
    windows = load_examples(path, tokenizer, 32)
    assert all(len(window.ids) == 32 for window in windows[:-1])
    assert tuple(token for window in windows for token in window.ids) == whole.ids
    assert whole.ids[-1] == tokenizer.eos_token_id
    # The stop token stands at the end of the text, not at the end of every window.
    assert all(tokenizer.eos_token_id not in window.ids for window in windows[:-1])


@pytest.mark.parametrize("separator", ["\u2028", "\x85"])
def test_only_newlines_end_a_row(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, separator: str) -> None:
    row = json.dumps({"text": f"Once{separator}upon a time"}, ensure_ascii=False)
    [example] = load_examples(write(tmp_path, row + "\n"), tokenizer, 64)
    assert separator in tokenizer.decode(example.ids)


# What carries loss.


def test_only_the_assistants_tokens_and_its_stop_carry_loss(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    row = chat("Count to two.", "One, two.", "And on?", "Three, four.")
    [example] = load_examples(write_rows(tmp_path, row), tokenizer, 512)
    whole = f"<|user|>Count to two.<|assistant|>One, two.{STOP}<|user|>And on?<|assistant|>Three, four.{STOP}"
    assert tokenizer.decode(example.ids) == whole
    assert answered(tokenizer, example) == f"One, two.{STOP}Three, four.{STOP}"
    assert example.answer[-1], "the stop token is predicted"


def test_the_last_prompt_token_carries_and_the_last_token_never(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    row = chat("Count to two.", "One, two.", "And on?", "Three, four.")
    [example] = load_examples(write_rows(tmp_path, row), tokenizer, 512)
    assistant = tokenizer.convert_tokens_to_ids("<|assistant|>")
    openings = [place for place, token in enumerate(example.ids) if token == assistant]
    assert len(openings) == 2
    for place in openings:
        assert not example.answer[place]
        assert example.carries[place], "the token before an answer predicts its first token"
        assert not example.carries[place - 1]
    assert not example.carries[-1]
    assert sum(example.carries) == sum(example.answer)


def test_the_prompt_is_what_stands_before_the_first_answer(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    row = chat("Count to two.", "One, two.", "And on?", "Three, four.")
    [example] = load_examples(write_rows(tmp_path, row), tokenizer, 512)
    assert tokenizer.decode(example.prompt) == "<|user|>Count to two.<|assistant|>"


def test_a_plain_text_is_prompted_with_its_opening(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    long, short = "one two three " * 20, "Two words"
    [first, second] = load_examples(write_rows(tmp_path, {"text": long}, {"text": short}), tokenizer, 512)
    assert first.prompt == first.ids[:TEXT_PROMPT_TOKENS]
    assert second.prompt == second.ids[:-1]


def test_an_unanswered_question_at_the_end_carries_nothing(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    [example] = load_examples(write_rows(tmp_path, chat("Hi.", "Hello.", "How are you?")), tokenizer, 512)
    assert answered(tokenizer, example) == f"Hello.{STOP}"


def test_long_examples_are_cut(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = write_rows(tmp_path, chat("Count.", "one two three four five six seven eight nine ten"))
    [whole], [cut] = load_examples(path, tokenizer, 512), load_examples(path, tokenizer, 8)
    assert cut.ids == whole.ids[:8]
    assert cut.answer == whole.answer[:8]


def test_rows_whose_answer_is_cut_off_are_left_out(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = write_rows(tmp_path, {"prompt": "word " * 50, "response": "yes"}, {"prompt": "a", "response": "yes"})
    assert len(load_examples(path, tokenizer, 512)) == 2
    [short] = load_examples(path, tokenizer, 24)
    assert answered(tokenizer, short) == f"yes{STOP}"


# Columns.


@pytest.mark.parametrize("response", RESPONSE_COLUMNS)
@pytest.mark.parametrize("prompt", PROMPT_COLUMNS)
def test_prompt_and_response_under_their_usual_names(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, prompt: str, response: str
) -> None:
    aliased = load_examples(write_rows(tmp_path, {prompt: "Say hi.", response: "Hi!"}), tokenizer, 64)
    assert aliased == load_examples(write_rows(tmp_path, chat("Say hi.", "Hi!")), tokenizer, 64)


@pytest.mark.parametrize(("more", "asked"), [("2 and 3", "Add these.\n2 and 3"), ("", "Add these.")])
def test_input_column_follows_the_instruction(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, more: str, asked: str
) -> None:
    row = {"instruction": "Add these.", "input": more, "output": "5"}
    [example] = load_examples(write_rows(tmp_path, row), tokenizer, 64)
    assert tokenizer.decode(example.prompt) == f"<|user|>{asked}<|assistant|>"


def test_domain_is_kept(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = write_rows(tmp_path, chat("Hi.", "Hello.") | {"domain": "greetings"}, chat("Hi.", "Hello."))
    assert [example.domain for example in load_examples(path, tokenizer, 64)] == ["greetings", ""]


def test_token_ids_are_taken_as_they_are(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    [example] = load_examples(write_rows(tmp_path, {"ids": [5, 6, 7, 8, 9], "prompt_tokens": 2}), tokenizer, 4)
    assert example.ids == (5, 6, 7, 8)
    assert example.answer == (False, False, True, True)
    assert example.prompt == (5, 6)


def test_token_ids_of_another_tokenizer_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    row = {"prompt": "Hi.", "response": "Hello there.", "prompt_tokens": 2}
    right = tokenizer(f" Hello there.{STOP}", add_special_tokens=False)["input_ids"]
    [example] = load_examples(write_rows(tmp_path, row | {"ids": [5, 6, *right]}), tokenizer, 64)
    assert example.ids == (5, 6, *right)
    with pytest.raises(DataError, match=r"begins 'Hello there\.' and ids that say .* by this tokenizer; generate"):
        load_examples(write_rows(tmp_path, row | {"ids": [5, 6, *reversed(right)]}), tokenizer, 64)


def test_an_answer_of_one_token_teaches_nothing(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match=r"none of the 1 rows of .* has two answer tokens"):
        load_examples(write_rows(tmp_path, {"ids": [5, 6, 7], "prompt_tokens": 2}), tokenizer, 64)


def test_without_a_template_prompt_and_response_are_joined(tmp_path: Path, bare: PreTrainedTokenizerBase) -> None:
    [example] = load_examples(write_rows(tmp_path, {"prompt": "Say hi:", "response": " Hi!"}), bare, 64)
    assert bare.decode(example.ids) == f"Say hi: Hi!{STOP}"
    assert answered(bare, example) == f" Hi!{STOP}"


def test_without_a_template_no_turn_is_lost(tmp_path: Path, bare: PreTrainedTokenizerBase) -> None:
    row = chat("Count to two.", "One, two.", "And on?", "Three, four.")
    text = "".join(bare.decode(example.ids) for example in load_examples(write_rows(tmp_path, row), bare, 64))
    assert "One, two." in text
    assert "And on?" in text


# Errors.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"data\.jsonl is empty; give a file with chat, prompt/response or text rows"),
        ("\n \n", r"data\.jsonl is empty; give a file"),
        ("[]", r"data\.jsonl is empty; give a file"),
        ('{"text": "a b"}\n{"text": \n', r"data\.jsonl:2 is not JSON \(Expecting value\); mend or remove the line"),
        ('[{"text": "a b"},\n {"text" 3}]', r"data\.jsonl:2 is not JSON \(Expecting ':' delimiter\)"),
        ('{"text": "a b"}\n\n["a"]\n', r"data\.jsonl:3 is list, not an object with columns; write one object a row"),
        ('[{"text": "a b"}, 7]', r"data\.jsonl, item 2 is int, not an object"),
        (
            '{"prompt": "a", "title": "b"}',
            r"data\.jsonl:1: it has columns prompt, title; needed are messages, or one of",
        ),
        ("{}", r"data\.jsonl:1: it has columns none; needed are"),
        (
            f'{{"prompt": "{"word " * 99}", "response": "b"}}',
            r"none of the 1 rows of .* within 64 tokens; raise --max-",
        ),
        ('{"messages": [{"role": "user", "content": "a"}]}', r"data\.jsonl:1: there is no assistant message"),
        ('{"messages": []}', r"data\.jsonl:1: there is no assistant message"),
        (b'{"text": "caf\xe9"}', r"data\.jsonl:1 is not UTF-8 at byte 13; save it as UTF-8"),
    ],
)
def test_unusable_file_is_refused_with_the_place(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_examples(write(tmp_path, content), tokenizer, 64)


def test_empty_text_file_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match=r"a\.txt is empty; give a file"):
        load_examples(write(tmp_path, " \n", "a.txt"), tokenizer, 64)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere.jsonl", "does not exist; give a local JSON, JSONL or text file"), (".", "folder .* has no data file")],
)
def test_missing_file_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_examples(tmp_path / name, tokenizer, 64)


def test_template_that_opens_answers_otherwise_is_refused(tmp_path: Path, bare: PreTrainedTokenizerBase) -> None:
    bare.chat_template = THINKING
    message = r"data\.jsonl:1: the chat template writes turn 2 differently .* give prompt/response rows instead"
    with pytest.raises(DataError, match=message):
        load_examples(write_rows(tmp_path, chat("Hi.", "Hello.")), bare, 64)


def test_template_that_rewrites_history_gives_an_example_for_each_turn(
    tmp_path: Path, bare: PreTrainedTokenizerBase
) -> None:
    """Each holds what decoding that turn would see."""
    bare.chat_template = FORGETFUL
    row = chat("Hi.", "Hello you.", "And?", "Bye bye.")
    first, second = load_examples(write_rows(tmp_path, row), bare, 64)
    assert bare.decode(first.ids) == f"<|user|>Hi.<|assistant|>Hello you.{STOP}"
    assert bare.decode(second.ids) == f"<|user|>Hi.<|assistant|><|user|>And?<|assistant|>Bye bye.{STOP}"
    assert answered(bare, second) == f"Bye bye.{STOP}"


@pytest.mark.parametrize("contents", [("Hi.", "Hello you."), ("Hi.", "Hello you.", "And?", "Bye bye.")])
def test_generation_markers_and_prefixes_agree(
    tmp_path: Path, bare: PreTrainedTokenizerBase, contents: Sequence[str]
) -> None:
    path = write_rows(tmp_path, chat(*contents))
    marked = MARKED.format(before="<|assistant|>" + SAID, after=f"{STOP}{OVER} ")
    bare.chat_template = marked
    by_markers = load_examples(path, bare, 64)
    assert Encoder(bare, 64).method == "generation markers"
    bare.chat_template = re.sub(r"\{% (end)?generation %\}", "", marked)
    assert Encoder(bare, 64).method == "verified prefixes"
    assert load_examples(path, bare, 64) == by_markers
    assert answered(bare, by_markers[0]).count(STOP) == len(contents) // 2


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (MARKED.format(before=SAID + "<|assistant|>", after=STOP + OVER), "loss begins at token .*decoding begins at"),
        (MARKED.format(before="<|assistant|>" + SAID, after=OVER + STOP), "ends an answer with .* and no stop token"),
        (SAID + FORGETFUL + OVER, "give loss to all of the .* tokens"),
        (FORGETFUL + SAID + OVER, "give loss to none of the .* tokens"),
        (UNSTOPPED, "ends an answer with 'Hello you.' and no stop token"),
    ],
    ids=["off by one", "stop outside", "all", "none", "never stops"],
)
def test_template_that_teaches_the_wrong_tokens_is_fatal(
    tmp_path: Path, bare: PreTrainedTokenizerBase, template: str, message: str
) -> None:
    bare.chat_template = template
    path = write_rows(tmp_path, {"text": "a b c"}, chat("Hi.", "Hello you."))
    with pytest.raises(LossMaskError, match=rf"data\.jsonl:2.*{message}"):
        read(Source(str(path)), Encoder(bare, 64), strict=False)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": ["hi", "hello"]},
        {"messages": [3]},
        {"ids": [1, 2, 3], "prompt_tokens": "two"},
    ],
    ids=str,
)
def test_columns_of_the_wrong_kind_are_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl:1"):
        load_examples(write_rows(tmp_path, row), tokenizer, 64)


@pytest.mark.parametrize(
    "row",
    [
        {"ids": ["a", "b"]},
        {"ids": [4096, 1, 2]},
        {"messages": [{"role": "user"}, {"role": "assistant"}]},
        {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "Hi."}]},
    ],
    ids=str,
)
def test_values_that_are_no_text_and_no_token_are_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, row: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl:1"):
        load_examples(write_rows(tmp_path, row), tokenizer, 64)
