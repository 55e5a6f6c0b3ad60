"""What is compared with is the base under the same rules, whatever its own generation config says."""

from typing import Any

import pytest
from transformers import GenerationConfig

from foresay.decoding.config import DecodeConfig, SampleConfig
from foresay.evaluation.baseline import plain_answers, sampled_answers
from foresay.model import MultiTokenModel
from tests.support.toys import LLAMA, random_prompts, with_adapter

PROMPTS = random_prompts([5, 9])
OWN: dict[str, Any] = {
    "no_repeat_ngram_size": 2,
    "num_beams": 3,
    "stop_strings": ["a"],
    "return_dict_in_generate": True,
    "num_return_sequences": 2,
    "guidance_scale": 3.0,
    "repetition_penalty": 1.9,
    "min_new_tokens": 3,
    "suppress_tokens": [1, 2, 3],
}


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel(with_adapter(LLAMA.model()), None, "llama")


@pytest.mark.parametrize("name", OWN)
def test_own_rules_of_a_base_are_on_neither_side(
    model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    own = GenerationConfig()
    setattr(own, name, OWN[name])  # a file is not validated when it is read
    monkeypatch.setattr(model.base.model, "generation_config", own)
    said = plain_answers(model, PROMPTS, 16)
    ours = model.decode(PROMPTS, DecodeConfig(layout="quadratic", max_new_tokens=16))
    assert said == [list(one.tokens) for one in ours]
    assert len(sampled_answers(model, PROMPTS[0], SampleConfig(temperature=1.0), 3, 4)) == 3
    assert model.base.model.generation_config is own
