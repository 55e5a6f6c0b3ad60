"""Structured output and the other rules of choosing tokens, asked of a server, and their refusals."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")
pytest.importorskip("llguidance")

import openai

from foresay.data.chat import encode, text_ids
from foresay.decoding.config import StructuredOutputs
from foresay.model import MultiTokenModel
from tests.support.served import ASKED, DECODE, QUESTION, Served, model, refused, server

__all__ = ["model", "server"]

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}
TIGHT = {"json": SCHEMA, "disable_any_whitespace": True}
FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "json": (TIGHT, r'\{"name":".{0,8}","old":(true|false)\}'),
    "regex": ({"regex": "[0-9]{3}-[0-9]{2}"}, "[0-9]{3}-[0-9]{2}"),
    "choice": ({"choice": ["yes, he has", "no"]}, "yes, he has|no"),
    "lark": ({"grammar": 'start: "a" ("b" | "c")+ "."'}, r"a[bc]+\."),
    "gbnf": ({"grammar": 'root ::= "he " ("has" | "had") " " [0-9]'}, r"he ha[sd] [0-9]"),
}


@pytest.mark.parametrize("name", FORMS)
def test_an_answer_has_the_form_and_is_plain_decodings(name: str, server: Served, model: MultiTokenModel) -> None:
    form, shape = FORMS[name]
    asked: dict[str, Any] = {**ASKED, "max_tokens": 60, "extra_body": {"structured_outputs": form}}
    choice = server.client.chat.completions.create(**asked).choices[0]
    assert choice.finish_reason == "stop"
    assert re.fullmatch(shape, choice.message.content, re.DOTALL), choice.message.content
    stream = server.client.chat.completions.create(**asked, stream=True)
    assert "".join(step.choices[0].delta.content for step in stream) == choice.message.content
    wanted = StructuredOutputs(**{**form, "choice": tuple(form["choice"]) if "choice" in form else None})
    for layout in ("plain", "quadratic"):
        decode = replace(DECODE, layout=layout, max_new_tokens=60)
        assert model.answer(QUESTION, decode, structured=wanted).text == choice.message.content
    sampled = server.client.chat.completions.create(**{**asked, "temperature": 1.3, "seed": 4}, n=2)
    for some in sampled.choices:
        assert some.finish_reason == "length" or re.fullmatch(shape, some.message.content, re.DOTALL)


def test_response_formats_of_openai(server: Served) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    said = server.client.chat.completions.create(**ASKED, max_tokens=64, response_format=form).choices[0]
    by_hand = {"json": SCHEMA}
    other = server.client.chat.completions.create(
        **ASKED, max_tokens=64, extra_body={"structured_outputs": by_hand}
    ).choices[0]
    assert said.message.content == other.message.content
    anything = {"type": "json_object"}
    whole = server.client.chat.completions.create(**ASKED, max_tokens=64, response_format=anything).choices[0]
    assert whole.finish_reason == "length" or isinstance(json.loads(whole.message.content), dict)
    text = server.client.chat.completions.create(**ASKED, max_tokens=9, response_format={"type": "text"})
    assert (
        text.choices[0].message.content
        == server.client.chat.completions.create(**ASKED, max_tokens=9).choices[0].message.content
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"structured_outputs": {"regex": "("}}, "the regular expression cannot be followed"),
        ({"structured_outputs": {}}, "0 of json, json_object, regex, choice, grammar were given; give one"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "2 of json"),
        ({"structured_outputs": {"json": "{"}}, "the JSON schema is no JSON"),
        ({"structured_outputs": {"grammar": "x ::= "}}, "the grammar cannot be read"),
        ({"structured_outputs": {"json": {"not": {"type": "null"}}}}, 'Unimplemented keys: ["not"]'),
        ({"structured_outputs": {"regex": r"[^\s\S]"}}, "after 0 tokens the grammar allows none"),
        ({"response_format": {"type": "json_schema"}}, "json_schema is given with the type json_schema"),
        (
            {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}},
            "response_format and structured_outputs are given",
        ),
        ({"response_format": {"type": "json_object"}, "ignore_eos": True}, "ignore_eos goes on past the end"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structural_tag is not supported here"),
        ({"logit_bias": {"99999": 1}}, "logit_bias names token 99999"),
        ({"logit_bias": {"5": 101}}, "less than or equal to 100"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens is 5 and max_tokens 4"),
        ({"prompt_logprobs": 2, "stream": True}, "prompt_logprobs come with a whole reply"),
    ],
)
def test_what_cannot_be_followed_is_said_in_a_sentence(more: dict[str, Any], said: str, server: Served) -> None:
    error = refused(server, 400, {"max_tokens": 20, **ASKED, **more})
    assert said in error["message"]
    assert "\n" not in error["message"]


def test_a_grammar_without_tokens_ends_its_stream_alone(server: Served) -> None:
    dead = {"structured_outputs": {"regex": r"[^\s\S]"}}
    with pytest.raises(openai.APIError, match="the grammar allows none"):
        list(server.client.chat.completions.create(**ASKED, max_tokens=9, stream=True, extra_body=dead))
    assert server.client.chat.completions.create(**ASKED, max_tokens=4).choices
    assert server.idle()


def test_a_bias_makes_tokens_sure_or_impossible(server: Served, model: MultiTokenModel) -> None:
    first = server.client.chat.completions.create(**ASKED, max_tokens=6, extra_body={"return_token_ids": True})
    [ids] = [choice.token_ids for choice in first.choices]
    without = server.client.chat.completions.create(
        **ASKED, max_tokens=6, logit_bias={str(ids[0]): -100}, extra_body={"return_token_ids": True}
    )
    assert ids[0] not in without.choices[0].token_ids
    only = server.client.chat.completions.create(
        **ASKED, max_tokens=6, logit_bias={str(ids[0]): 100}, extra_body={"return_token_ids": True}
    )
    assert only.choices[0].token_ids == [ids[0]] * 6


def test_answers_are_as_long_as_was_asked_for(server: Served) -> None:
    asked = {**ASKED, "max_tokens": 64}
    short = server.client.chat.completions.create(**asked)
    assert short.choices[0].finish_reason == "stop"
    length = short.usage.completion_tokens
    longer = server.client.chat.completions.create(**asked, extra_body={"min_tokens": length + 3})
    assert longer.usage.completion_tokens >= length + 3
    assert longer.choices[0].message.content.startswith(short.choices[0].message.content)
    endless = server.client.chat.completions.create(**asked, extra_body={"ignore_eos": True})
    assert (endless.usage.completion_tokens, endless.choices[0].finish_reason) == (64, "length")
    word = short.choices[0].message.content[:3]
    late = server.client.chat.completions.create(**asked, stop=word, extra_body={"min_tokens": 3})
    assert late.choices[0].message.content.startswith(word), "stop strings count later too"


def test_the_prompt_is_echoed_and_its_chances_named(server: Served, model: MultiTokenModel) -> None:
    text = "Once upon a time there was"
    asked: dict[str, Any] = {"model": "nano", "prompt": text, "max_tokens": 4, "temperature": 0}
    plain = server.client.completions.create(**asked, logprobs=2).choices[0]
    both = server.client.completions.create(**asked, logprobs=2, echo=True, n=2, extra_body={"prompt_logprobs": 1})
    ids = text_ids(model.require_tokenizer(), text)
    import torch  # noqa: PLC0415

    own = model.base.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    for choice in both.choices:
        assert choice.text == text + plain.text
        assert choice.logprobs.tokens[len(ids) :] == plain.logprobs.tokens
        assert choice.logprobs.token_logprobs[0] is choice.logprobs.top_logprobs[0] is None
        said = choice.logprobs.token_logprobs[1 : len(ids)]
        assert said == pytest.approx([float(own[place, token]) for place, token in enumerate(ids[1:])], abs=1e-3)
        assert choice.logprobs.token_logprobs[len(ids) :] == pytest.approx(plain.logprobs.token_logprobs, abs=1e-3)
        first, *others = choice.prompt_logprobs
        assert first is None
        for place, (token, named) in enumerate(zip(ids[1:], others, strict=True)):
            assert named[str(token)]["rank"] == 1 + int((own[place] > own[place, token]).sum())
            assert named[str(int(own[place].argmax()))]["rank"] == 1
            assert len(named) <= 2
    chat = server.client.chat.completions.create(**ASKED, max_tokens=2, extra_body={"prompt_logprobs": 0})
    assert len(chat.prompt_logprobs) == len(encode(model.require_tokenizer(), QUESTION[0]["content"]))
    assert chat.usage.prompt_tokens_details.cached_tokens == 0, "what is to be named is read"
    streamed = server.client.completions.create(**asked, echo=True, stream=True)
    assert "".join(step.choices[0].text for step in streamed) == text + plain.text
    error = refused(server, 400, {**asked, "echo": True, "logprobs": 1, "stream": True}, "/v1/completions")
    assert "echo with logprobs" in error["message"]
