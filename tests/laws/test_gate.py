"""The base stays the base: closed gate, real rows beside masks, frozen weights."""

import pytest
import torch

from foresay.data.example import Example
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.loop.trainer import Trainer
from foresay.training.objectives.masks import MaskObjective
from tests.support.row_checks import (
    check_adapter_cannot_reach_real_rows,
    check_base_is_unchanged,
    check_closed_gate_is_the_base,
    check_real_rows_are_the_base,
)
from tests.support.toys import GPT2, LLAMA, OPT, QWEN3_MOE, TOYS, Toy, adapted, random_prompts, with_adapter
from tests.support.training_checks import Ragged, two_pass_result

every_toy = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)


@every_toy
def test_closed_gate_is_the_base(toy: Toy) -> None:
    check_closed_gate_is_the_base(adapted(toy), toy)


@every_toy
def test_real_rows_beside_masks_are_the_base(toy: Toy) -> None:
    check_real_rows_are_the_base(adapted(toy), toy)


@pytest.mark.parametrize("toy", [toy for toy in TOYS if not toy.experts], ids=lambda toy: toy.name)
def test_adapter_cannot_reach_real_rows(toy: Toy) -> None:
    check_adapter_cannot_reach_real_rows(adapted(toy), adapted(toy, 2), toy)


@pytest.mark.parametrize("toy", [LLAMA, GPT2, OPT, QWEN3_MOE], ids=lambda toy: toy.name)
def test_training_leaves_the_base_alone(toy: Toy) -> None:
    mtp = with_adapter(toy.model(), masks=3)
    before = {name: p.detach().clone() for name, p in mtp.adapter.named_parameters()}
    examples = [Example(text, (False, False, *[True] * (len(text) - 2))) for text in random_prompts((12, 9, 14, 7))]
    config = TrainConfig(steps=6, sequences=2, anchors=4, chunk_anchors=3, learning_rate=1e-2, warmup_steps=1)
    Trainer(MaskObjective(mtp, examples, config), config).run()
    for name, parameter in mtp.adapter.named_parameters():
        assert not torch.equal(parameter, before[name]), f"{name} was not trained, so nothing is shown"
    check_base_is_unchanged(mtp, toy)
    check_closed_gate_is_the_base(mtp, toy)
    check_real_rows_are_the_base(mtp, toy)


@every_toy
def test_every_tensor_of_the_adapter_learns(toy: Toy) -> None:
    mtp = with_adapter(toy.model(), masks=3)
    gradients = two_pass_result(mtp, Ragged.random().batch, LossConfig(), 4).gradients
    for name, _ in mtp.adapter.named_parameters():
        assert torch.isfinite(gradients[name]).all(), f"gradient of {name} is not finite"
        assert gradients[name].abs().max() > 0, f"{name} gets no gradient"
    check_base_is_unchanged(mtp, toy)


def test_routers_and_experts_are_left_alone_and_said_so() -> None:
    linears = adapted(QWEN3_MOE).base.linears()
    assert set(linears.adapted) == {f"model.layers.{n}.self_attn.{p}_proj" for n in (0, 1) for p in "qkvo"}
    assert set(linears.left_alone) == {f"model.layers.{n}.mlp.{part}" for n in (0, 1) for part in ("gate", "experts")}
