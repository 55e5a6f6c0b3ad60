"""The training loop: what each step takes and how fast it learns."""

from typing import Any

import pytest

from foresay.data.example import Example
from foresay.foundation.errors import DivergedError
from foresay.models.config import MTPConfig
from foresay.models.masks.model import MaskModel
from foresay.training.config import TrainConfig
from foresay.training.loop.progress import Losses
from foresay.training.loop.trainer import Trainer
from foresay.training.objectives import masks
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.masks import MaskObjective
from tests.support.toys import LLAMA, random_prompts

EXAMPLES = [Example(text, (False, *[True] * (len(text) - 1))) for text in random_prompts((12, 9, 14, 7, 8, 10))]


def trainer(num_masks: int = 4, **settings: Any) -> Trainer:
    model = MaskModel.from_base(LLAMA.model(), MTPConfig(num_masks=num_masks, rank=2))
    config = TrainConfig(**{"sequences": 2, "anchors": 3, "warmup_steps": 0} | settings)
    return Trainer(MaskObjective(model, EXAMPLES, config), config)


def test_blocks_grow_with_the_curriculum(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def two_pass(model: MaskModel, batch: Batch, *more: Any) -> Losses:
        seen.append(batch.masks)
        model.adapter.mask_embeddings.sum().backward()
        return Losses()

    monkeypatch.setattr(masks, "two_pass", two_pass)
    trainer(4, steps=10, curriculum_steps=8).run()
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4, 4, 4]
    seen.clear()
    trainer(4, steps=2).run()
    assert seen == [4, 4]


def test_a_run_that_diverges_ends_in_words() -> None:
    with pytest.raises(DivergedError, match=r"step \d has a gradient norm of (nan|inf), .*lower learning_rate"):
        trainer(steps=8, learning_rate=1e30).run()


def test_rates_rise_and_fall() -> None:
    rates = trainer(steps=8, warmup_steps=4).rate
    assert [rates(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates(8) == pytest.approx(0.01)
    assert trainer(steps=8, schedule="constant").rate(7) == 1.0
