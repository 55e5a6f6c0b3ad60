"""Output is plain's up to the last position of the context, and across the switch of longrope."""

from dataclasses import replace

import pytest

from foresay.decoding.config import DecodeConfig, LayoutName
from tests.support.checks import (
    Spoil,
    always_right,
    always_wrong,
    check_drafter_changes_nothing,
    check_greedy_is_plain,
    sometimes_right,
)
from tests.support.layouts import DRAFTING, FIXED
from tests.support.row_checks import (
    Scene,
    check_branches_are_texts,
    check_mask_states_agree,
    check_real_rows_are_the_base,
)
from tests.support.toys import GPT2, OPT, PHI3_LONGROPE, SWITCH, Toy, adapted, random_prompts

CONTEXT = 2 * SWITCH


def short(toy: Toy) -> Toy:
    """The toy with a context of `CONTEXT` tokens."""
    return replace(toy, name=f"{toy.name}-{CONTEXT}", settings={**toy.settings, "max_position_embeddings": CONTEXT})


SHORT = [short(toy) for toy in (GPT2, OPT, PHI3_LONGROPE)]
EDGES = [
    (3,),
    (CONTEXT - 1, CONTEXT - 2, 5),
    (SWITCH - 2, SWITCH - 1, SWITCH, SWITCH + 1, CONTEXT - 5),
    (SWITCH, SWITCH + 4),
    (SWITCH + 1, CONTEXT - 8),
]
BATCHES = [random_prompts(lengths, seed) for seed, lengths in enumerate(EDGES)]
ALONE = [[prompt] for batch in BATCHES for prompt in batch]


@pytest.mark.parametrize("masks", [1, 3, 8])
@pytest.mark.parametrize("layout", FIXED)
@pytest.mark.parametrize("toy", SHORT, ids=lambda toy: toy.name)
def test_up_to_the_last_position(toy: Toy, layout: LayoutName, masks: int) -> None:
    mtp, config = adapted(toy), DecodeConfig(layout=layout, masks=masks, max_new_tokens=CONTEXT)
    generations = check_greedy_is_plain(mtp, toy, config, BATCHES)
    prompts = [prompt for batch in BATCHES for prompt in batch]
    assert [len(generation.tokens) + len(prompt) for generation, prompt in zip(generations, prompts)] == [
        CONTEXT for _ in prompts
    ]


@pytest.mark.parametrize("masks", [1, 3, 8])
@pytest.mark.parametrize("layout", DRAFTING)
@pytest.mark.parametrize("spoil", [always_right, always_wrong, sometimes_right], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("toy", SHORT, ids=lambda toy: toy.name)
def test_every_drafter_up_to_the_last_position(toy: Toy, spoil: Spoil, layout: LayoutName, masks: int) -> None:
    config = DecodeConfig(layout=layout, masks=masks, max_new_tokens=CONTEXT)
    check_drafter_changes_nothing(adapted(toy), toy, config, spoil, ALONE)


@pytest.mark.parametrize("layout", DRAFTING)
@pytest.mark.parametrize("toy", SHORT[:2], ids=lambda toy: toy.name)
def test_a_batch_in_which_some_reach_the_end_first(toy: Toy, layout: LayoutName) -> None:
    config = DecodeConfig(layout=layout, masks=3, max_new_tokens=CONTEXT)
    check_drafter_changes_nothing(adapted(toy), toy, config, sometimes_right, BATCHES)


@pytest.mark.parametrize("layout", FIXED)
@pytest.mark.parametrize("new_tokens", [8, 10, 11])
def test_a_batch_that_just_reaches_the_switch(layout: LayoutName, new_tokens: int) -> None:
    toy = SHORT[2]
    config = DecodeConfig(layout=layout, masks=3, max_new_tokens=new_tokens)
    check_greedy_is_plain(
        adapted(toy), toy, config, [random_prompts((3, 6, 5)), random_prompts((4, 1, 6, 2, 5), seed=1)]
    )


def test_rows_beyond_the_switch() -> None:
    scene = Scene.random(past=(SWITCH + 8, SWITCH + 1, SWITCH + 4), length=SWITCH + 12)
    check_real_rows_are_the_base(adapted(PHI3_LONGROPE), PHI3_LONGROPE, scene)
    check_mask_states_agree(adapted(PHI3_LONGROPE), PHI3_LONGROPE, scene)
    check_branches_are_texts(adapted(PHI3_LONGROPE), PHI3_LONGROPE, scene)
