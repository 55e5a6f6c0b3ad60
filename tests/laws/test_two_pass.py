"""Two passes have the losses and gradients of the paper's interleaved single pass, whatever the chunks."""

from dataclasses import replace
from functools import lru_cache
from typing import Literal

import pytest
import torch

from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.objectives import losses
from foresay.training.objectives.two_pass import two_pass
from tests.support.toys import (
    GEMMA2,
    GEMMA3,
    GPT2,
    LLAMA,
    MISTRAL_WINDOW,
    MIXTRAL,
    PHI3_LONGROPE,
    QWEN3_MOE,
    SWITCH,
    VOCABULARY,
    Toy,
    with_adapter,
)
from tests.support.training_checks import (
    WEIGHTS,
    Ragged,
    Result,
    check_consistency_sends_no_gradient_to_its_anchor,
    check_two_passes_are_one,
    one_pass_result,
    two_pass_result,
)

MASKS = 3
CHUNKS = [1, 7, 0]
BATCH = Ragged.random()
Sampler = Literal["paper", "residual"]
Target = Literal["label", "base_argmax"]


@lru_cache
def trainee(toy: Toy, sampler: Sampler = "residual") -> MaskModel:
    return with_adapter(toy.model(), masks=MASKS, sampler=sampler)


@lru_cache
def reference(toy: Toy, sampler: Sampler, config: LossConfig, ragged: Ragged = BATCH) -> Result:
    return one_pass_result(trainee(toy, sampler), ragged.batch, config)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("real_rows", [False, True], ids=["masks", "real-rows"])
@pytest.mark.parametrize("target", ["label", "base_argmax"])
@pytest.mark.parametrize("sampler", ["paper", "residual"])
@pytest.mark.parametrize("toy", [LLAMA, GPT2], ids=lambda toy: toy.name)
def test_two_passes_are_one(toy: Toy, sampler: Sampler, target: Target, real_rows: bool, chunk: int) -> None:
    config = LossConfig(**WEIGHTS, target=target, real_rows=real_rows)
    ours = two_pass_result(trainee(toy, sampler), BATCH.batch, config, chunk)
    check_two_passes_are_one(ours, reference(toy, sampler, config))


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("toy", [GEMMA2, GEMMA3, MISTRAL_WINDOW, QWEN3_MOE, MIXTRAL], ids=lambda toy: toy.name)
def test_two_passes_are_one_with_windows_experts_and_capped_logits(toy: Toy, chunk: int) -> None:
    config = LossConfig(**WEIGHTS, real_rows=True)
    ours = two_pass_result(trainee(toy), BATCH.batch, config, chunk)
    check_two_passes_are_one(ours, reference(toy, "residual", config))


@pytest.mark.parametrize("toy", [LLAMA, GEMMA3, MISTRAL_WINDOW], ids=lambda toy: toy.name)
def test_a_base_in_bfloat16_teaches_the_same(toy: Toy) -> None:
    """The adapter trains in float32 and sees the base's rounding only."""
    config = LossConfig(target="label")
    exact = two_pass_result(trainee(toy), BATCH.batch, config, 0).gradients
    mtp = with_adapter(toy.model().to(torch.bfloat16), masks=MASKS)
    for name, gradient in two_pass_result(mtp, BATCH.batch, config, 0).gradients.items():
        assert gradient.dtype == torch.float32
        assert torch.cosine_similarity(gradient.flatten(), exact[name].flatten(), dim=0) > 0.97, name


ACROSS = Ragged.random((SWITCH + 1, SWITCH), anchors=0)


def test_sequences_across_the_switch_are_refused() -> None:
    with pytest.raises(ValueError, match=f"reach past position {SWITCH}"):
        two_pass(trainee(PHI3_LONGROPE), ACROSS.batch, LossConfig(**WEIGHTS))


DISTIL = {"kl_weight": 0.6, "variation_weight": 1.7, "teacher_temperature": 0.8}
SETTINGS = {
    "kl": LossConfig(hard_weight=0, kl_weight=0.6),
    "variation": LossConfig(hard_weight=0, variation_weight=0.6),
    "all": LossConfig(**WEIGHTS, **DISTIL, hard_weight=0.4, real_rows=True, target="label"),
    "own": LossConfig(own_loss="tests.support.own_losses:overlap"),
    "sum": LossConfig(consistency_over="sum"),
    "positions": LossConfig(**WEIGHTS, position_weights=(1.5, 0.5)),
    "a position off": LossConfig(**DISTIL, position_weights=(0.0, 1.0, 3.0), real_rows=True),
}


@pytest.mark.parametrize("masks", [0, 2], ids=["whole", "grown to 2"])
@pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS)
def test_two_passes_are_one_with_every_loss(config: LossConfig, masks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 7 * VOCABULARY)
    ragged = Ragged(replace(BATCH.batch, masks=masks), BATCH.lengths)
    mtp = with_adapter(LLAMA.model(), masks=MASKS)
    plain = one_pass_result(mtp, ragged.batch, config)
    ours = two_pass_result(mtp, ragged.batch, config, 4)
    unused = plain.gradients["mask_embeddings"].abs().sum(1) == 0
    assert unused.tolist() == [False, False, masks == 2], "a block of 2 masks teaches the first 2"
    check_two_passes_are_one(ours, plain)


ALL = Ragged.random(anchors=0, seed=1)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_two_passes_are_one_with_every_anchor(chunk: int) -> None:
    config = LossConfig(**WEIGHTS, target="label", real_rows=True)
    ours = two_pass_result(trainee(LLAMA), ALL.batch, config, chunk)
    check_two_passes_are_one(ours, reference(LLAMA, "residual", config, ALL))


def test_two_passes_are_one_with_eight_masks() -> None:
    ragged, config = Ragged.random((20, 13), anchors=0, seed=2), LossConfig(**WEIGHTS)
    mtp = with_adapter(LLAMA.model(), masks=8)
    plain = one_pass_result(mtp, ragged.batch, config)
    check_two_passes_are_one(two_pass_result(mtp, ragged.batch, config, 5), plain)


def test_the_batch_is_ragged_and_some_positions_have_no_mask() -> None:
    carries, anchors = BATCH.batch.carries, BATCH.batch.anchors
    assert carries.shape[1] > min(BATCH.lengths)
    assert (anchors < 0).any()
    assert (anchors >= 0).sum() < carries.sum(), "anchors are subsampled"
    standing = {(b, a + j) for b, row in enumerate(anchors.tolist()) for a in row if a >= 0 for j in (1, 2, 3)}
    carrying = {(b, t) for b, t in carries.nonzero().tolist()}
    assert carrying - standing, "some S_t is empty"
    assert standing - carrying, "some masks have no label"


@pytest.mark.parametrize("real_rows", [False, True], ids=["masks", "real-rows"])
def test_two_passes_are_one_without_a_sampler(real_rows: bool) -> None:
    config = LossConfig(sampler_weight=0, real_rows=real_rows)
    mtp = with_adapter(LLAMA.model(), masks=MASKS, sampler="none")
    check_two_passes_are_one(two_pass_result(mtp, BATCH.batch, config, 4), one_pass_result(mtp, BATCH.batch, config))


def test_frozen_masks_get_no_gradient() -> None:
    mtp = with_adapter(LLAMA.model(), masks=MASKS, train_masks=False)
    gradients = two_pass_result(mtp, BATCH.batch, LossConfig(), 0).gradients
    assert "mask_embeddings" not in gradients
    assert gradients["sampler.inner.weight"].abs().max() > 0


def test_consistency_sends_no_gradient_to_its_anchor() -> None:
    check_consistency_sends_no_gradient_to_its_anchor()
