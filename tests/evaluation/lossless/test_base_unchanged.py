"""A witness sees one bit of the base, and a gate that leaks."""

import pytest
import torch

from foresay.evaluation.lossless.base_unchanged import check_untouched, witness
from foresay.models.masks.model import MaskModel
from tests.support.toys import LLAMA, TOYS, Toy, with_adapter


@pytest.fixture
def core() -> MaskModel:
    return with_adapter(LLAMA.model(), masks=3)


@pytest.mark.parametrize("toy", [toy for toy in TOYS if not toy.experts], ids=lambda toy: toy.name)
def test_a_closed_gate_changes_no_bit(toy: Toy) -> None:
    before = witness(toy.model())
    found = check_untouched(before, with_adapter(toy.model()))
    assert found.holds
    assert found.sentence.startswith("The base is untouched")


def test_the_same_holds_in_half_precision() -> None:
    before = witness(LLAMA.model().to(torch.bfloat16))
    assert check_untouched(before, with_adapter(LLAMA.model().to(torch.bfloat16))).holds


def test_one_bit_of_one_weight_is_seen(core: MaskModel) -> None:
    before = witness(core.model)
    with torch.no_grad():
        bits = core.model.model.norm.weight.view(torch.int32)
        bits[0] ^= 1
    found = check_untouched(before, core)
    assert not found.holds
    assert found.before.weights != found.after.weights


def test_a_leaking_gate_is_seen(core: MaskModel) -> None:
    before = witness(core.model)
    core.detach_hooks()  # the check itself attaches the adapter to the base
    with core.gate.open(4, 32, 16):
        found = check_untouched(before, core)
    assert (found.before.weights == found.after.weights, found.holds) == (True, False)
    assert found.sentence == "The base is NOT itself any more: its logits changed."
