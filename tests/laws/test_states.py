"""What a mask row says depends on the prefix before it and on nothing else: not the layout, batch or stale slots."""

import pytest

from foresay.decoding.config import LayoutName
from tests.support.checks import check_layouts_agree
from tests.support.layouts import DRAFTING
from tests.support.row_checks import (
    check_branches_are_texts,
    check_mask_states_agree,
    check_stale_slots_are_unseen,
    check_stale_slots_change_no_token,
)
from tests.support.toys import GEMMA2, GEMMA3, GPT2, LLAMA, OPT, QWEN3_MOE, TOYS, Toy, adapted

every_toy = pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)


@every_toy
def test_mask_states_agree_between_training_prefill_linear_and_quadratic(toy: Toy) -> None:
    check_mask_states_agree(adapted(toy), toy)


@every_toy
def test_rows_and_masks_of_a_tree_are_those_of_the_text_on_their_way(toy: Toy) -> None:
    check_branches_are_texts(adapted(toy), toy)


@every_toy
def test_stale_slots_are_unseen(toy: Toy) -> None:
    check_stale_slots_are_unseen(adapted(toy), toy)


@pytest.mark.parametrize("layout", DRAFTING)
@pytest.mark.parametrize("toy", [LLAMA, GPT2, GEMMA2, QWEN3_MOE], ids=lambda toy: toy.name)
def test_stale_slots_change_no_token(toy: Toy, layout: LayoutName) -> None:
    check_stale_slots_change_no_token(adapted(toy), toy, layout)


@pytest.mark.parametrize("masks", [1, 2, 5])
@pytest.mark.parametrize("toy", [LLAMA, OPT, GEMMA3], ids=lambda toy: toy.name)
def test_layouts_accept_the_same_behind_the_same_prefix(toy: Toy, masks: int) -> None:
    check_layouts_agree(adapted(toy), toy, masks)
