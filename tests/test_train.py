"""The training loop: what each step takes and how fast it learns."""

from typing import Any

import pytest

from foresay.config import MTPConfig, TrainConfig
from foresay.modelling.model import MaskModel
from foresay.training import train
from foresay.training.data import Example
from foresay.training.losses import Losses
from foresay.training.train import Trainer
from foresay.training.two_pass import Batch
from toys import LLAMA, random_prompts

EXAMPLES = [Example(text, (False, *[True] * (len(text) - 1))) for text in random_prompts((12, 9, 14, 7, 8, 10))]


def trainer(masks: int = 4, **settings: Any) -> Trainer:
    model = MaskModel.from_base(LLAMA.model(), MTPConfig(num_masks=masks, rank=2))
    return Trainer(model, EXAMPLES, TrainConfig(**{"sequences": 2, "anchors": 3, "warmup_steps": 0} | settings))


def test_blocks_grow_with_the_curriculum(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def two_pass(model: MaskModel, batch: Batch, *more: Any) -> Losses:
        seen.append(batch.masks)
        model.adapter.masks.sum().backward()
        return Losses()

    monkeypatch.setattr(train, "two_pass", two_pass)
    trainer(4, steps=10, curriculum_steps=8).run()
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4, 4, 4]
    seen.clear()
    trainer(4, steps=2).run()
    assert seen == [4, 4]


def test_rates_rise_and_fall() -> None:
    rates = trainer(steps=8, warmup_steps=4).rate
    assert [rates(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(8) == pytest.approx(0.01)
    assert trainer(steps=8, schedule="constant").rate(7) == 1.0
