"""The paper's single pass, held against things that are plainer still: pairs of rows, a merged base, formulas."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from foresay.models.masks.sampler_head import PaperSampler, ResidualSampler, Sampler
from foresay.training.config import LossConfig
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.one_pass import acting, one_pass, packs, see_packed, standard_lora
from tests.support.checks import assert_close
from tests.support.toys import GPT2, LLAMA, Toy, pristine, redraw, with_adapter
from tests.support.training_checks import Ragged

MASKS = 2
BATCH = Ragged.random()
FIRST = packs(BATCH.batch, MASKS)[0]


def test_rows_stand_as_the_paper_draws_them() -> None:
    batch = Batch(torch.tensor([[7, 8, 9, 7, 0]]), torch.tensor([[True] * 3 + [False] * 2]), torch.tensor([[0, 1]]))
    [pack] = packs(batch, MASKS)
    assert pack.ids.tolist() == [7, 8, 9, 7]
    assert pack.mask.tolist() == [0, 1, 2, 0, 1, 2, 0, 0]
    assert pack.position.tolist() == [0, 1, 2, 1, 2, 3, 2, 3]
    assert pack.asked.tolist() == [0, 1, 2, 3, 4, 6], "the last token has no label after it"


@pytest.mark.parametrize("window", [None, 3])
def test_visible_is_a_rule_for_pairs(window: int | None) -> None:
    seen, rows = FIRST.visible(window)[0, 0], list(zip(FIRST.anchor.tolist(), FIRST.mask.tolist()))
    for q, (anchor, mask) in enumerate(rows):
        for k, (other, number) in enumerate(rows):
            rule = other <= anchor if number == 0 else other == anchor and number <= mask
            near = window is None or anchor + mask - other - number < window
            assert seen[q, k] == (rule and near), f"{rows[q]} and {rows[k]}"


@pytest.mark.parametrize("toy", [LLAMA, GPT2], ids=lambda toy: toy.name)
def test_gated_real_rows_are_the_base_and_standard_ones_a_merged_base(toy: Toy) -> None:
    mtp = with_adapter(toy.model(), masks=MASKS)
    merged = copy.deepcopy(pristine(toy))
    modules = dict(merged.named_modules())
    with torch.no_grad():
        for pair in mtp.adapter.pairs:
            weight, product = modules[pair.name].weight, pair.scale * pair.up @ pair.down
            weight += product if isinstance(modules[pair.name], nn.Linear) else product.T
        for everywhere, own in ((False, pristine(toy)), (True, merged)):
            rows = see_packed(mtp, FIRST, acting(FIRST, everywhere))
            assert_close(rows.logits[0, FIRST.own], own(FIRST.ids[None]).logits[0], f"everywhere: {everywhere}")
        with standard_lora(mtp):
            assert_close(mtp.model(BATCH.batch.ids).logits, merged(BATCH.batch.ids).logits, "called as any model")
        assert torch.equal(mtp.model(BATCH.batch.ids).logits, pristine(toy)(BATCH.batch.ids).logits)


def test_standard_lora_learns_from_real_rows_too() -> None:
    config = LossConfig(target="label", real_rows=True, sampler_weight=0, consistency_weight=0)
    norms = []
    for everywhere in (False, True):
        mtp = with_adapter(LLAMA.model(), masks=MASKS)
        # Without a mask there is nothing to learn, but for the next token itself.
        one_pass(mtp, replace(BATCH.batch, anchors=BATCH.batch.anchors * 0 - 1), config, everywhere)
        norms.append(max(pair.up.grad.abs().max().item() for pair in mtp.adapter.pairs if pair.up.grad is not None))
    assert norms[0] == 0 < norms[1]


def norm(states: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = states - states.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias


def silu(states: Tensor) -> Tensor:
    return states / (1 + (-states).exp())


@pytest.mark.parametrize("kind", [PaperSampler, ResidualSampler])
def test_samplers_are_their_formulas(kind: type[Sampler]) -> None:
    sampler = kind(5, 7)
    sampler.reset(torch.Generator())
    redraw(sampler, 0)
    previous, state = torch.randn(3, 5), torch.randn(3, 7)
    both = torch.cat((previous, state), dim=-1)
    if isinstance(sampler, PaperSampler):
        first = norm(silu(both @ sampler.first.weight.T + sampler.first.bias), sampler.first_norm)
        expected = norm(silu(first @ sampler.second.weight.T + sampler.second.bias), sampler.second_norm)
    else:
        assert isinstance(sampler, ResidualSampler)
        inner = norm(both @ sampler.inner.weight.T + sampler.inner.bias, sampler.norm)
        expected = state + silu(inner) @ sampler.out.weight.T + sampler.out.bias
    assert_close(sampler(previous, state), expected, kind.__name__)


def test_sequences_without_loss_are_left_out() -> None:
    batch = Ragged.random().batch
    batch.carries[1] = False
    assert [len(pack.ids) for pack in packs(batch, MASKS)] == [16, 6]
