"""The built-in probe: labels one token off the decoder's drafts are found before training."""

import re

import pytest

from foresay.data.example import Example
from foresay.foundation.errors import LossMaskError
from foresay.models.masks.model import MaskModel
from foresay.training import label_check as probe
from tests.support.toys import GPT2, LLAMA, MISTRAL_WINDOW, Toy, adapted, random_prompts

EXAMPLES = [Example((*prompt, 1, 2), (False,) * len(prompt) + (True,) * 2) for prompt in random_prompts((9, 5, 12))]


@pytest.mark.parametrize("toy", [LLAMA, GPT2, MISTRAL_WINDOW], ids=lambda toy: toy.name)
def test_labels_stand_where_drafts_go(toy: Toy) -> None:
    model = adapted(toy)
    probe.check_labels(model, EXAMPLES)
    accepted = [probe._accepted(model, example.prompt, shift=0) for example in EXAMPLES]
    assert accepted == [model.config.num_masks] * 3, "the decoder accepts every label"


@pytest.mark.parametrize("off", [-1, 1])
def test_labels_one_off_are_refused(monkeypatch: pytest.MonkeyPatch, off: int) -> None:
    right = probe.labels

    def wrong(model: MaskModel, prompt: list[int], answer: list[int]) -> list[int]:
        text, start = [*prompt, *answer], len(prompt) + off
        return right(model, text[:start], text[start:])

    monkeypatch.setattr(probe, "labels", wrong)
    with pytest.raises(LossMaskError, match=re.escape(f"labels stand {off:+d} token from where")):
        probe.check_labels(adapted(LLAMA), EXAMPLES)
