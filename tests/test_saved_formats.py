"""What the code of commit 3f01793 saved is read by the code of today: an adapter, heads, tokenised data."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from foresay.data.token_cache import TokenStore
from foresay.decoding.config import DecodeConfig
from foresay.model import MultiTokenModel

SAVED = Path(__file__).parent / "support" / "saved"


@pytest.mark.parametrize("kind", ["adapter", "heads"])
def test_a_saved_model_loads_and_drafts_as_it_did(kind: str) -> None:
    model = MultiTokenModel.from_pretrained(SAVED / kind, AutoModelForCausalLM.from_pretrained(SAVED / "base"))
    said = json.loads((SAVED / "answers.json").read_text(encoding="utf-8"))
    answers = model.decode(said["prompts"], DecodeConfig(layout="quadratic", max_new_tokens=12))
    assert [answer.tokens for answer in answers] == said[kind]["tokens"]
    steps = [[list(step.tokens) for step in answer.steps] for answer in answers]
    assert steps == said[kind]["steps"]
    assert max(len(step) for answer in steps for step in answer) > 1, "no draft was kept, so the weights show nothing"
    assert model.provenance["commit"] == "3f01793"


def test_saved_tokens_are_read() -> None:
    examples = list(TokenStore(SAVED / "tokens"))
    assert [(one.ids, one.answer, one.domain) for one in examples] == [
        ((1, 2, 3, 4), (False, False, True, True), "math"),
        ((5, 6, 7), (False, True, True), "chat"),
        ((8, 9), (True, True), "math"),
    ]
