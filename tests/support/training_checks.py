"""The laws of training as plain functions: losses and gradients of two passes and of one."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from foresay.data.example import Example
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.loop.progress import Losses
from foresay.training.objectives import losses
from foresay.training.objectives.batches import Batch, collate
from foresay.training.objectives.one_pass import one_pass
from foresay.training.objectives.two_pass import two_pass
from tests.support.checks import NothingShownError
from tests.support.toys import random_prompts

WEIGHTS = {"base_weight": 0.7, "sampler_weight": 1.3, "consistency_weight": 0.9}


@dataclass(frozen=True)
class Ragged:
    """A training batch with the lengths of its sequences."""

    batch: Batch
    lengths: tuple[int, ...]

    @classmethod
    def random(cls, lengths: tuple[int, ...] = (16, 11, 6), anchors: int = 9, seed: int = 0) -> "Ragged":
        """Sequences with prompts of 2, 3, ... tokens and `anchors` blocks each, where there are as many (0: all)."""
        texts = random_prompts(lengths, seed)
        examples = [Example(text, tuple(t >= 2 + b for t in range(len(text)))) for b, text in enumerate(texts)]
        return cls(collate(examples, anchors, torch.Generator().manual_seed(seed), torch.device("cpu")), lengths)


@dataclass(frozen=True)
class Result:
    """Loss parts and the gradient of every tensor of the adapter, by name."""

    losses: Losses
    gradients: dict[str, Tensor]


def two_pass_result(mtp: MaskModel, batch: Batch, config: LossConfig, chunk_anchors: int) -> Result:
    """Losses and gradients of `two_pass`."""
    return result_of(mtp, lambda: two_pass(mtp, batch, config, chunk_anchors))


def one_pass_result(mtp: MaskModel, batch: Batch, config: LossConfig) -> Result:
    """Losses and gradients of the paper's single pass."""
    return result_of(mtp, lambda: one_pass(mtp, batch, config))


def result_of(mtp: MaskModel, step: Callable[[], Losses]) -> Result:
    """What a step leaves in the adapter that it is the first of."""
    mtp.adapter.zero_grad(set_to_none=True)
    parts = step()
    return Result(parts, {name: p.grad for name, p in mtp.adapter.named_parameters() if p.grad is not None})


def check_two_passes_are_one(ours: Result, plain: Result, tolerance: float = 5e-5) -> None:
    """Every loss part and the gradient of every tensor of the adapter are those of the paper's single pass."""
    for part in ("base", "sampler", "consistency", "total"):
        mine, theirs = getattr(ours.losses, part), getattr(plain.losses, part)
        assert mine == pytest.approx(theirs, rel=tolerance), f"{part}: {mine}, in one pass {theirs}"
    assert ours.gradients.keys() == plain.gradients.keys()
    for name, gradient in plain.gradients.items():
        if not gradient.any():
            raise NothingShownError(f"{name} gets no gradient")
        apart = ((ours.gradients[name] - gradient).norm() / gradient.norm()).item()
        assert apart <= tolerance, f"gradient of {name}: {apart:.1e} apart"


def check_consistency_sends_no_gradient_to_its_anchor() -> None:
    """The states that masks are drawn to do not move; the gradient of the masks is that of a mean square."""
    generator = torch.Generator().manual_seed(0)
    states, anchors = (torch.randn(4, 8, generator=generator).requires_grad_() for _ in range(2))
    shares = torch.tensor([1.0, 0.5, 0.5, 0.25])
    losses.consistency_sum(states, anchors, shares).backward()
    assert anchors.grad is None or not anchors.grad.any(), "the anchor of the consistency loss learns"
    torch.testing.assert_close(states.grad, 2 / 8 * (states - anchors).detach() * shares[:, None])
