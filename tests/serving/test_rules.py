"""Where nobody says how tokens are chosen, the base's own generation config does, as in transformers and vLLM."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from foresay.data.chat import encode
from foresay.decoding.config import DecodeConfig, PenaltyConfig, SampleConfig
from foresay.model import MultiTokenModel
from foresay.serving.rules import Rules, own_rules
from tests.support.served import served

QWEN = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
NEW = 24


@pytest.fixture(scope="module")
def nano() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano")


@pytest.fixture
def model(nano: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[MultiTokenModel]:
    """nano, whose generation config a test may replace."""
    monkeypatch.setattr(nano.base.model, "generation_config", nano.base.model.generation_config)
    yield nano
    nano.close()


def own(model: MultiTokenModel, **said: Any) -> GenerationConfig:
    stops = list(model.base.stop_tokens)
    config = GenerationConfig(eos_token_id=stops, pad_token_id=stops[0], **said)
    model.base.model.generation_config = config
    return config


@pytest.mark.parametrize(
    ("said", "given", "sample", "penalty"),
    [
        ({}, (), SampleConfig(), 1.0),
        (QWEN, (), SampleConfig(temperature=0.6, top_k=20, top_p=0.95), 1.0),
        ({"do_sample": True, "min_p": 0.1}, (), SampleConfig(temperature=1.0, min_p=0.1), 1.0),
        (QWEN | {"do_sample": False}, (), SampleConfig(), 1.0),
        (QWEN, ("top_k",), SampleConfig(temperature=0.6, top_p=0.95), 1.0),
        (QWEN | {"repetition_penalty": 1.1}, ("temperature",), SampleConfig(), 1.1),
        ({"repetition_penalty": 1.1}, ("repetition_penalty",), SampleConfig(), 1.0),
    ],
)
def test_values_that_are_not_given_are_the_bases(
    said: dict[str, Any], given: tuple[str, ...], sample: SampleConfig, penalty: float
) -> None:
    rules = own_rules(GenerationConfig(**said), given=given)
    assert rules.sample == sample
    assert rules.penalties == PenaltyConfig(repetition_penalty=penalty)


def test_what_was_taken_is_said_and_what_is_not_followed_too() -> None:
    rules = own_rules(GenerationConfig(**QWEN, stop_strings="END", no_repeat_ngram_size=3, num_beams=1))
    assert rules.sentence == (
        "from the base's generation_config.json: temperature 0.6, top_k 20, top_p 0.95, stop string 'END'; not "
        "followed: no_repeat_ngram_size 3"
    )
    assert own_rules(GenerationConfig()) == Rules()
    assert Rules().sentence == ""


@pytest.mark.parametrize("said", [{"repetition_penalty": 1.3}, {"stop_strings": [""]}, QWEN | {"top_k": 1}], ids=str)
def test_answers_under_a_bases_rules_are_those_of_transformers(model: MultiTokenModel, said: dict[str, Any]) -> None:
    tokenizer, decode = model.require_tokenizer(), DecodeConfig(layout="quadratic", max_new_tokens=NEW)
    ids = encode(tokenizer, "Tom has 3 apples and buys 4 more. How many apples has he?")
    [bare] = model.decode([ids], decode)
    if "stop_strings" in said:
        said = {"stop_strings": [tokenizer.decode(bare.tokens[7:9])]}
    config = own(model, **said)
    model.close()
    prompt = torch.tensor([ids])
    theirs = model.base.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, tokenizer=tokenizer
    )
    hooks = own_rules(config).hooks(model, ids)
    [ours] = model.decode([ids], decode, hooks)
    assert list(ours.tokens) == theirs[0, len(ids) :].tolist()
    assert "top_k" in said or ours.tokens != bare.tokens, "the rule makes a difference"


def test_requests_that_are_silent_are_answered_under_the_bases_rules(model: MultiTokenModel) -> None:
    own(model, **QWEN | {"top_k": 1})
    asked: Any = {"model": "nano", "messages": [{"role": "user", "content": "Tom has 3 apples."}], "max_tokens": 12}
    with served(model) as server:
        create = server.client.chat.completions.create
        silent = {create(**asked, seed=seed).choices[0].message.content for seed in (1, 2, 3)}
        greedy = create(**asked, temperature=0).choices[0].message.content
        said = {create(**asked, seed=seed, temperature=2.0, extra_body={"top_k": 0}).choices[0].message.content
                for seed in (1, 2, 3)}  # fmt: skip
    assert silent == {greedy}
    assert said != {greedy}
