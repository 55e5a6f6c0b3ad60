"""Documents side by side in a sequence have the losses and gradients that they have alone."""

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from foresay.data.example import Example
from foresay.models.masks import model
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig
from foresay.training.objectives.batches import Batch, collate, collate_packed
from tests.support.toys import (
    FALCON,
    GEMMA2,
    GEMMA3,
    GPT2,
    LLAMA,
    MISTRAL_WINDOW,
    PHI3_LONGROPE,
    SWITCH,
    Toy,
    random_prompts,
    with_adapter,
)
from tests.support.training_checks import WEIGHTS, check_two_passes_are_one, two_pass_result

MASKS, CPU = 3, torch.device("cpu")
LENGTHS = (12, 5, 3, 14, 7, 9)
ROWS = ((0, 1, 2), (3,), (4, 5))
"""Which documents stand in which sequence: 20, 14 and 16 rows, so that two of them are padded."""
EXAMPLES = [
    Example(text, tuple(place >= 1 + number % 2 for place in range(len(text))))
    for number, text in enumerate(random_prompts(LENGTHS))
]


@lru_cache
def trainee(toy: Toy) -> MaskModel:
    return with_adapter(toy.model(), masks=MASKS)


def alone() -> Batch:
    return collate(EXAMPLES, 4, torch.Generator().manual_seed(3), CPU)


def packed() -> Batch:
    """The same documents with the same anchors."""
    sequences = [[EXAMPLES[number] for number in row] for row in ROWS]
    return collate_packed(sequences, 4, torch.Generator().manual_seed(3), CPU)


@pytest.mark.parametrize("chunk", [2, 0])
@pytest.mark.parametrize("rows", [6, 2048], ids=["a few rows", "all rows"])
@pytest.mark.parametrize("real_rows", [False, True], ids=["masks", "real-rows"])
@pytest.mark.parametrize("toy", [LLAMA, GPT2, MISTRAL_WINDOW, GEMMA2, GEMMA3, FALCON], ids=lambda toy: toy.name)
def test_packed_is_alone(toy: Toy, real_rows: bool, rows: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LossConfig(**WEIGHTS, real_rows=real_rows, target="label" if real_rows else "base_argmax")
    plain = two_pass_result(trainee(toy), alone(), config, 0)
    monkeypatch.setattr(model, "ROWS_AT_ONCE", rows)
    check_two_passes_are_one(two_pass_result(trainee(toy), packed(), config, chunk), plain)


def own_anchors(batch: Batch) -> list[list[int]]:
    """Anchors of every document, counted from its own first row."""
    starts: Tensor = batch.documents.starts
    found: dict[tuple[int, int], list[int]] = {}
    for sequence, row in (batch.anchors >= 0).nonzero().tolist():
        anchor = int(batch.anchors[sequence, row])
        start = int(starts[sequence, anchor])
        found.setdefault((sequence, start), []).append(anchor - start)
    return [found[key] for key in sorted(found)]


def test_every_document_has_the_anchors_it_has_alone() -> None:
    assert own_anchors(packed()) == own_anchors(alone())
    assert [len(anchors) for anchors in own_anchors(packed())] == [4, 3, 2, 4, 4, 4]


def test_what_is_packed_stands_in_fewer_rows() -> None:
    assert packed().ids.shape == (3, 20)
    assert alone().ids.shape == (6, 14)


def test_documents_that_see_one_another_are_noticed() -> None:
    batch = replace(packed(), starts=torch.zeros_like(packed().ids))
    plain = two_pass_result(trainee(LLAMA), alone(), LossConfig(**WEIGHTS), 0)
    with pytest.raises(AssertionError):
        check_two_passes_are_one(two_pass_result(trainee(LLAMA), batch, LossConfig(**WEIGHTS), 0), plain)


def test_positions_begin_anew_so_a_sequence_may_be_longer_than_the_base_looks() -> None:
    assert packed().ids.shape[1] > SWITCH > max(LENGTHS)
    config = LossConfig(**WEIGHTS)
    plain = two_pass_result(trainee(PHI3_LONGROPE), alone(), config, 0)
    check_two_passes_are_one(two_pass_result(trainee(PHI3_LONGROPE), packed(), config, 0), plain)
