"""Greedy output is plain's, to the token: transformers' own `generate` on each prompt alone is the judge."""

from dataclasses import replace

import pytest

from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.planning.draft_tree import tree_for
from tests.support.checks import (
    BATCHES,
    NEW,
    Spoil,
    always_right,
    always_wrong,
    check_counts,
    check_drafter_changes_nothing,
    check_greedy_is_plain,
    late_stops,
    sometimes_right,
)
from tests.support.toys import (
    GEMMA2,
    GPT2,
    LLAMA,
    MASKS,
    MISTRAL_WINDOW,
    OPT,
    QWEN3_MOE,
    TOYS,
    VOCABULARY,
    Toy,
    adapted,
)

with_masks = pytest.mark.parametrize("layout", ["linear", "quadratic", "tree"])


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_plain_is_transformers_generate(toy: Toy) -> None:
    generations = check_greedy_is_plain(adapted(toy), toy, DecodeConfig(layout="plain", max_new_tokens=NEW))
    check_counts(generations, depth=0, rightly=False)


@pytest.mark.parametrize("masks", [1, 3])
@with_masks
@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_every_architecture(toy: Toy, layout: LayoutName, masks: int) -> None:
    check_greedy_is_plain(adapted(toy), toy, DecodeConfig(layout=layout, masks=masks, max_new_tokens=NEW))


@pytest.mark.parametrize("masks", range(1, MASKS + 1))
@with_masks
@pytest.mark.parametrize("toy", [LLAMA, GPT2], ids=lambda toy: toy.name)
def test_every_number_of_masks(toy: Toy, layout: LayoutName, masks: int) -> None:
    config = DecodeConfig(layout=layout, masks=masks, max_new_tokens=NEW)
    check_greedy_is_plain(adapted(toy), toy, config)
    check_drafter_changes_nothing(adapted(toy), toy, config, sometimes_right)


@pytest.mark.parametrize("masks", [1, 3, 8])
@with_masks
@pytest.mark.parametrize("spoil", [always_right, always_wrong, sometimes_right], ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("toy", [LLAMA, MISTRAL_WINDOW, GEMMA2, QWEN3_MOE, OPT], ids=lambda toy: toy.name)
def test_every_drafter(toy: Toy, spoil: Spoil, layout: LayoutName, masks: int) -> None:
    config = DecodeConfig(layout=layout, masks=masks, max_new_tokens=NEW)
    generations = check_drafter_changes_nothing(adapted(toy), toy, config, spoil)
    if spoil is sometimes_right:
        partly = {step.accepted for generation in generations for step in generation.steps if step.drafted}
        assert len(partly) > 1, "drafts that are all right or all wrong test no prefix"
    else:
        depth = tree_for(adapted(toy), config).within(masks).depths[-1]
        check_counts(generations, depth, rightly=spoil is always_right)


@pytest.mark.parametrize(("branches", "nodes"), [(1, 3), (2, 2), (2, 14), (5, 7), (3, 60)])
@pytest.mark.parametrize("toy", [LLAMA, GPT2, MISTRAL_WINDOW], ids=lambda toy: toy.name)
def test_every_shape_of_tree(toy: Toy, branches: int, nodes: int) -> None:
    config = DecodeConfig(layout="tree", masks=3, branches=branches, nodes=nodes, max_new_tokens=NEW)
    check_greedy_is_plain(adapted(toy), toy, config)
    generations = check_drafter_changes_nothing(adapted(toy), toy, config, sometimes_right)
    assert len({step.accepted for generation in generations for step in generation.steps if step.drafted}) > 1


@with_masks
@pytest.mark.parametrize("toy", [LLAMA, GPT2, GEMMA2], ids=lambda toy: toy.name)
def test_a_shortlist_changes_drafts_only(toy: Toy, layout: LayoutName) -> None:
    """However short; one as long as the vocabulary drafts as none does."""
    config = DecodeConfig(layout=layout, masks=3, max_new_tokens=NEW)
    said = [check_greedy_is_plain(adapted(toy), toy, replace(config, shortlist=size)) for size in (3, 8, VOCABULARY, 0)]
    assert said[2] == said[3]
    assert said[0] != said[3]


@pytest.mark.parametrize("layout", ["plain", "linear", "quadratic", "tree"])
@pytest.mark.parametrize("toy", [LLAMA, GPT2, QWEN3_MOE], ids=lambda toy: toy.name)
def test_stop_tokens(toy: Toy, layout: LayoutName, monkeypatch: pytest.MonkeyPatch) -> None:
    mtp = adapted(toy)
    stops = late_stops(mtp, toy)
    monkeypatch.setattr(mtp.model.generation_config, "eos_token_id", stops)
    config = DecodeConfig(layout=layout, masks=3, max_new_tokens=NEW)
    own = check_greedy_is_plain(mtp, toy, config)
    for generations in (
        own,
        *(check_drafter_changes_nothing(mtp, toy, config, s) for s in (always_right, sometimes_right)),
    ):
        assert {generation.ended for generation in generations} == {"stop", "length"}
        for generation in generations:
            assert (generation.ended == "stop") == (generation.tokens[-1] in stops)
    check_greedy_is_plain(mtp, toy, DecodeConfig(layout=layout, masks=3, max_new_tokens=NEW, ignore_stop=True))


def test_batches_are_ragged() -> None:
    assert sorted(map(len, BATCHES)) == [1, 2, 5]
    assert all(len(set(lengths)) == len(lengths) for lengths in BATCHES)
