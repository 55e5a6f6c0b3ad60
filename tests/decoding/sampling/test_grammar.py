"""Grammars from what users give: schemas, pydantic models, settings; in `answer` and inside `generate`."""

import json
import sys

import pytest

pytest.importorskip("llguidance")

from pydantic import BaseModel, ConfigDict, Field

from foresay import MultiTokenModel, StructuredOutputs
from foresay.foundation.errors import ConfigError, MissingPackage, PromptError


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")
    old: bool
    pens: int = Field(ge=0, le=999)


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano")


QUESTION = "Tom has 3 apples and buys 4 more. How many apples has he?"
SETTINGS = {"max_new_tokens": 60, "layout": "quadratic"}
TIGHT = StructuredOutputs(json=Person.model_json_schema(), disable_any_whitespace=True)


def test_schemas_come_in_three_ways(model: MultiTokenModel) -> None:
    ways = [Person, Person.model_json_schema(), json.dumps(Person.model_json_schema())]
    answers = [model.answer(QUESTION, structured=way, **SETTINGS).text for way in ways]
    assert answers[0] == answers[1] == answers[2]
    [own, other] = model.answer([QUESTION, "Say hi."], structured=TIGHT, **SETTINGS)
    for answer in (own, other):
        assert Person.model_validate_json(answer.text).model_dump_json() == answer.text
    sampled = model.answer(QUESTION, structured=TIGHT, temperature=1.0, seed=5, **SETTINGS)
    assert sampled.ended == "length" or Person.model_validate_json(sampled.text)


def test_inside_transformers_it_is_the_same(model: MultiTokenModel) -> None:
    texts = ["Tom has", "Once upon a time there was a dog named"]
    alone = [model.generate(text, structured=TIGHT, max_new_tokens=60, do_sample=False) for text in texts]
    for text, ids in zip(texts, alone):
        said = model.tokenizer.decode(ids[0], skip_special_tokens=True).removeprefix(text)
        assert Person.model_validate_json(said)
    # Padded side by side, each keeps to its own place in the grammar.
    both = model.generate(texts, structured=TIGHT, max_new_tokens=60, do_sample=False)
    for row, ids in zip(both, alone):
        one, other = (model.tokenizer.decode(some, skip_special_tokens=True) for some in (row, ids[0]))
        assert one == other
    plain = model.generate(texts, structured=TIGHT, max_new_tokens=60, do_sample=False, layout="plain")
    assert plain.tolist() == both.tolist()


def test_an_answer_that_other_rules_keep_from_its_form_is_refused(model: MultiTokenModel) -> None:
    """The best token of none that is left is any token, which transformers' own greedy decoding takes."""
    tokenizer, stop = model.require_tokenizer(), model.base.stop_tokens[0]
    letters = [token for token in range(len(tokenizer)) if {*tokenizer.decode([token]).strip()} & {*"ab"}]
    form = StructuredOutputs(regex="(ab){8}")
    settings = {"structured": form, "max_new_tokens": 30, "do_sample": False}
    for rule in (
        {"suppress_tokens": letters},
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": [[one] for one in letters]},
    ):
        for layout in ("plain", "quadratic"):
            with pytest.raises(PromptError, match="the grammar allows none that the other settings leave; loosen"):
                model.generate("Tom has", **settings, **rule, layout=layout)
    for rule in ({"repetition_penalty": 5.0}, {"stop_strings": ["aba"]}, {"max_new_tokens": 4}, {"min_new_tokens": 2}):
        said = model.generate("Tom has", **{**settings, **rule})[0].tolist()
        text = tokenizer.decode(said, skip_special_tokens=True).removeprefix("Tom has")
        assert ("ab" * 8).startswith(text)
        assert (text == "ab" * 8) == (said[-1] == stop)


def test_what_is_no_form_is_refused(model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PromptError, match="structured is a list; give a JSON schema"):
        model.answer("Hi", structured=[1])
    with pytest.raises(PromptError, match=r"after 0 tokens the grammar allows none .* loosen the grammar"):
        model.answer("Hi", structured=StructuredOutputs(regex=r"[^\s\S]"))
    with pytest.raises(PromptError, match="loosen the grammar"):
        model.generate("Hi", structured=StructuredOutputs(regex=r"[^\s\S]"), max_new_tokens=5)
    with pytest.raises(PromptError, match="the base has no stop token"):
        model.generate("Hi", structured=TIGHT, max_new_tokens=5, eos_token_id=[])
    for wrong in ({}, {"regex": "a", "json_object": True}):
        with pytest.raises(ConfigError, match="were given; give one"):
            StructuredOutputs(**wrong)
    for empty in (("a", ""), (), ("a", 1)):
        with pytest.raises(ConfigError, match="choice holds no text"):
            StructuredOutputs(choice=empty)
    # A text is a sequence too: of its letters.
    for form, value in {"choice": "yes", "regex": 5, "grammar": ["a"], "json": [1], "json_object": "yes"}.items():
        with pytest.raises(ConfigError, match=f"{form} is .*; give "):
            StructuredOutputs(**{form: value})
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingPackage, match=r"structured output needs llguidance.*foresay\[structured\]"):
        model.answer("Hi", structured=Person)
