"""Greedy drafts against the sampler head asked token by token."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from foresay.decoding.sampling.draft import draft_greedy
from foresay.models.layout.tree import Tree
from tests.support.strategies import drawn_trees
from tests.support.toys import LLAMA, TOYS, VOCABULARY, Toy, adapted, with_adapter


@torch.no_grad()
def check_drafts(toy: Toy, tree: Tree, masks: int, batch: int) -> None:
    mtp, generator = adapted(toy), torch.Generator().manual_seed(tree.drafts)
    states = torch.randn(batch, masks, mtp.base.head.weight.shape[1], generator=generator)
    newest = torch.randint(VOCABULARY, (batch,), generator=generator)
    drafts = draft_greedy(mtp, states, newest, tree)
    inside = tree.within(masks)
    assert drafts.shape == (batch, inside.drafts)
    for b in range(batch):
        tokens = [int(newest[b]), *drafts[b].tolist()]
        for node, depth in enumerate(inside.depths):
            after = [tokens[draft] for draft, parent in enumerate(inside.parents, 1) if parent == node]
            if after:
                scores = mtp.base.head(mtp.sample(torch.tensor(tokens[node]), states[b, depth]))
                assert after == scores.argsort(descending=True)[: len(after)].tolist()


@given(drawn_trees(8), st.integers(1, 4))
def test_behind_each_token_stand_the_best_of_the_sampler_head(tree: Tree, masks: int) -> None:
    check_drafts(LLAMA, tree, masks, batch=2)


@torch.no_grad()
def test_without_a_sampler_every_draft_is_the_base_heads_own() -> None:
    mtp = with_adapter(LLAMA.model(), masks=3, sampler="none")
    assert not list(mtp.adapter.sampler.parameters())
    states = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    drafts = [draft_greedy(mtp, states, torch.tensor(newest), Tree.chain(3)) for newest in ([1, 2], [3, 4])]
    for said in drafts:
        assert torch.equal(said, mtp.base.head(states).argmax(-1))


def test_a_chain_where_the_head_is_wider_than_the_layers() -> None:
    [projected] = [toy for toy in TOYS if toy.name == "opt-projected"]
    check_drafts(projected, Tree.chain(3), masks=3, batch=3)
