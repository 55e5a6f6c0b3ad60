"""Greedy drafts against the sampler head asked token by token."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from foresay.decoding.config import DecodeConfig
from foresay.decoding.sampling.draft import Blocks, draft_greedy
from foresay.decoding.session import Session
from foresay.models import drafting
from foresay.models.config import HeadsConfig
from foresay.models.drafting import DraftingModel, rank
from foresay.models.heads.model import HeadsModel
from foresay.models.layout.call import Call
from foresay.models.layout.layout import Layout
from foresay.models.layout.tree import Tree
from tests.support.strategies import drawn_trees
from tests.support.toys import LLAMA, TOYS, VOCABULARY, Toy, adapted, with_adapter


@torch.no_grad()
def check_drafts(toy: Toy, tree: Tree, masks: int, batch: int) -> None:
    mtp, generator = adapted(toy), torch.Generator().manual_seed(tree.drafts)
    states = torch.randn(batch, masks, mtp.base.head.weight.shape[1], generator=generator)
    newest = torch.randint(VOCABULARY, (batch,), generator=generator)
    drafts = draft_greedy(mtp, Blocks(states, newest, tree))
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
    drafts = [draft_greedy(mtp, Blocks(states, torch.tensor(newest), Tree.chain(3))) for newest in ([1, 2], [3, 4])]
    for said in drafts:
        assert torch.equal(said, mtp.base.head(states).argmax(-1))


def test_a_chain_where_the_head_is_wider_than_the_layers() -> None:
    [projected] = [toy for toy in TOYS if toy.name == "opt-projected"]
    check_drafts(projected, Tree.chain(3), masks=3, batch=3)


class WideRows(TorchDispatchMode):
    """Counts the rows that are as wide as the vocabulary, by the product that made them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        products = ("aten.mm", "aten.bmm", "aten.addmm", "aten.linear")
        if str(func).startswith(products) and made.shape[-1] == VOCABULARY:
            self.rows.append(made.numel() // VOCABULARY)
        return made


def models() -> dict[str, DraftingModel]:
    heads = HeadsModel.from_base(LLAMA.model(), HeadsConfig(heads=4, variant="linear"))
    return {"masks": with_adapter(LLAMA.model(), masks=3), "heads": heads}


@pytest.mark.parametrize("tree", [Tree.chain(3), Tree((0, 0, 1, 1, 2, 3, 5))], ids=["chain", "tree"])
@pytest.mark.parametrize(("name", "model"), models().items(), ids=models().keys())
@torch.no_grad()
def test_with_a_shortlist_the_unembedding_is_read_once_a_block(name: str, model: DraftingModel, tree: Tree) -> None:
    states = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    rows = {}
    for shortlist in (0, 4):
        model.shortlist = shortlist
        with WideRows() as wide:
            draft_greedy(model, Blocks(states, torch.tensor([1, 2]), tree))
        rows[shortlist] = wide.rows
    assert rows[4] == [6], "one product for all masks of the block"
    assert len(rows[0]) == 3


@torch.no_grad()
def test_a_block_of_one_mask_reads_it_once_too() -> None:
    model = with_adapter(LLAMA.model(), masks=3)
    model.shortlist = 4
    with WideRows() as wide:
        draft_greedy(model, Blocks(torch.randn(2, 1, 32), torch.tensor([1, 2]), Tree.chain(3)))
    assert wide.rows == [2]


@pytest.mark.parametrize(("most", "rows"), [(0, [4, 3]), (11, [4, 3]), (12, [4 + 12])])
@torch.no_grad()
def test_masks_are_unembedded_with_the_real_rows_where_they_are_few(
    most: int, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafting, "GUESSED_AT_ONCE", most)
    model, config = adapted(LLAMA), DecodeConfig(layout="quadratic", masks=3, max_new_tokens=30)
    said = {}
    for shortlist in (0, VOCABULARY - 1):
        monkeypatch.setattr(model, "shortlist", shortlist)
        session = Session(model, [(5, 3, 8)], config)
        session.step()
        with WideRows() as wide:
            session.step()
        said[shortlist] = session.live[0].ids, session.pending.tokens.tolist()
    assert wide.rows == rows
    assert said[0] == said[VOCABULARY - 1]


@torch.no_grad()
def test_the_guesses_of_a_call_are_the_heads_own() -> None:
    model = with_adapter(LLAMA.model(), masks=3)
    model.shortlist = 4
    ids, past = torch.tensor([[5, 3, 8, 2], [1, 7, 7, 4]]), torch.zeros(2, dtype=torch.int64)
    seen = model.see(ids, Call(Layout.quadratic(4, 3), past), model.cache(60, 3), 2)
    assert seen.guesses is not None
    assert seen.logits.shape == (2, 2, VOCABULARY)
    rows = torch.tensor([[7, 8, 9], [10, 11, 12]])  # the blocks after the second and the third row
    states, guesses = seen.select(torch.tensor([1, 0])).block(rows)
    assert torch.equal(states, torch.stack((seen.states[1, 7:10], seen.states[0, 10:13])))
    assert guesses is not None
    torch.testing.assert_close(guesses, model.base.unembed(states))
    model.shortlist = 0
    assert model.see(ids, Call(Layout.quadratic(4, 3), past), model.cache(60, 3), 2).guesses is None


class Doubled(nn.Linear):
    """A head that is more than its weight, as PEFT's and quantised ones are."""

    def forward(self, states: Tensor) -> Tensor:
        return 2 * super().forward(states)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [nn.Linear, Doubled])
@torch.no_grad()
def test_a_shortlist_has_the_scores_of_the_head(kind: type[nn.Linear], bias: bool) -> None:
    head, states, tokens = kind(8, 20, bias=bias), torch.randn(2, 3, 8), torch.tensor([[3, 19, 0], [7, 7, 1]])
    wanted = torch.stack([rows[:, chosen] for rows, chosen in zip(head(states), tokens)])
    torch.testing.assert_close(rank(head, states, tokens), wanted)
