"""Losses against the plainest form of each, and their backward pass in chunks against the one over all rows."""

import math
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foresay.foundation.errors import ConfigError
from foresay.training.config import LossConfig
from foresay.training.objectives import losses
from foresay.training.objectives.losses import (
    backward_in_chunks,
    cross_entropy,
    head_loss,
    kl_divergence,
    own_loss,
    total_variation,
)

VOCABULARY = 11


def rows(seed: int, count: int = 6, width: int = VOCABULARY) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 3


seeds = st.integers(0, 2**31)


@given(seeds)
def test_divergences_are_sums_over_the_vocabulary(seed: int) -> None:
    draft, base = rows(seed), rows(seed + 1)
    for row in range(len(draft)):
        p, q = base[row].double().softmax(-1).tolist(), draft[row].double().softmax(-1).tolist()
        kl = sum(a * math.log(a / b) for a, b in zip(p, q))
        accepted = sum(min(a, b) for a, b in zip(p, q))
        assert kl_divergence(draft, base)[row].item() == pytest.approx(kl, abs=1e-5)
        assert total_variation(draft, base)[row].item() == pytest.approx(1 - accepted, abs=1e-5)
        assert cross_entropy(draft, torch.full((6,), 3))[row].item() == pytest.approx(-math.log(q[3]), abs=1e-5)


@given(seeds)
def test_a_head_pays_the_weighted_sum(seed: int) -> None:
    config = LossConfig(hard_weight=0.4, kl_weight=0.6, variation_weight=1.7, teacher_temperature=0.8)
    draft, base = rows(seed).double(), rows(seed + 1).double()
    targets = torch.arange(len(draft))
    p, q = (base / 0.8).softmax(-1), draft.softmax(-1)
    pays = 0.4 * -q[targets, targets].log() + 0.6 * (p * (p.log() - q.log())).sum(-1) + 1.7 * (p - q).clamp(0).sum(-1)
    torch.testing.assert_close(head_loss(draft, targets, base, config).double(), pays, atol=1e-4, rtol=1e-4)


def test_a_draft_like_the_base_costs_nothing() -> None:
    assert kl_divergence(rows(0), rows(0) + 5).abs().max() < 1e-5
    assert total_variation(rows(0), rows(0) + 5).abs().max() < 1e-6


def test_losses_of_half_precision_are_those_of_its_values_in_float32() -> None:
    draft, base = rows(0).bfloat16(), rows(1).bfloat16()
    for divergence in (kl_divergence, total_variation):
        assert torch.equal(divergence(draft, base), divergence(draft.float(), base.float()))


@given(seeds)
def test_a_cold_teacher_is_the_hard_target(seed: int) -> None:
    draft, base = rows(seed), rows(seed + 1)
    # Twice the gap between the best two, so that nothing depends on near-ties.
    base.scatter_add_(1, base.argmax(-1, keepdim=True), torch.ones(len(base), 1))
    cold = LossConfig(hard_weight=0, kl_weight=1, teacher_temperature=1e-3)
    soft = head_loss(draft, base.argmin(-1), base, cold)
    torch.testing.assert_close(soft, cross_entropy(draft, base.argmax(-1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("at_once", [1, 2, 7, 100])
def test_chunks_have_the_gradient_of_all_rows(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", at_once * VOCABULARY + 3)
    weight = rows(1, VOCABULARY, 5)
    head, sources = weight.clone().requires_grad_(), rows(2, 7, 5).requires_grad_()
    targets = torch.arange(7) % VOCABULARY

    def loss(some: slice, states: Tensor) -> Tensor:
        return cross_entropy(states @ head.T, targets[some]).sum()

    backward_in_chunks(sources.tanh(), VOCABULARY, loss)
    chunked = (sources.grad, head.grad)
    sources.grad = head.grad = None
    loss(slice(None), sources.tanh()).backward()
    for ours, naive in zip(chunked, (sources.grad, head.grad)):
        assert naive is not None
        torch.testing.assert_close(ours, naive)


def test_no_logits_are_kept_beyond_their_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 4 * VOCABULARY)
    seen: list[weakref.ref[Tensor]] = []

    def loss(some: slice, states: Tensor) -> Tensor:
        assert not any(logits() is not None for logits in seen), "a chunk's logits outlive it"
        logits = states @ rows(1, 5)
        seen.append(weakref.ref(logits))
        assert len(logits) <= 4
        return cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64)).sum()

    backward_in_chunks(rows(2, 30, 5).requires_grad_() * 2, VOCABULARY, loss)
    assert len(seen) == 8


def test_no_rows_still_go_backward() -> None:
    # A process without rows of its own takes part in the backward pass of a sharded base.
    source = rows(0).requires_grad_()
    backward_in_chunks(source[:0] * 2, VOCABULARY, lambda some, states: states.sum())
    assert source.grad is not None
    assert not source.grad.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_weight": -1}, "kl_weight is -1; give 0 or more"),
        ({"teacher_temperature": 0}, "teacher_temperature is 0; give a positive one"),
        ({"position_weights": (1, -1)}, "give weights of 0 or more"),
        ({"position_weights": (0, 0)}, "not all of them 0"),
    ],
)
def test_impossible_losses_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LossConfig(**settings)  # type: ignore[arg-type]


def test_a_loss_of_ones_own_is_added_to_the_heads() -> None:
    draft, base, targets = rows(1), rows(2), torch.arange(6)
    config = LossConfig(own_loss="tests.support.own_losses:overlap")
    assert config.distils
    ours = head_loss(draft, targets, base, config) - head_loss(draft, targets, base, LossConfig())
    assert torch.allclose(ours, -(draft.softmax(-1) * base.softmax(-1)).sum(-1), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nowhere:loss", "No module named 'nowhere'"),
        ("math:loss", "has no attribute 'loss'"),
        ("math", "cannot be imported"),
        ("", "cannot be imported"),
        ("math:pi", "is no function"),
    ],
)
def test_a_loss_that_is_not_there_is_said_in_a_sentence(name: str, found: str) -> None:
    with pytest.raises(ConfigError, match=f"^own_loss is {name!r}.*{found}.*; give MODULE:FUNCTION"):
        own_loss(name)


def test_a_loss_that_gives_no_number_a_row_is_refused() -> None:
    config = LossConfig(own_loss="tests.support.own_losses:one_number")
    with pytest.raises(ConfigError, match=r"gave \(\) for 6 rows; return a tensor with a loss a row"):
        head_loss(rows(1), torch.arange(6), rows(2), config)
