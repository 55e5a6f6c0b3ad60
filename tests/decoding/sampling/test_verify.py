"""Which drafts stay, against a walk from the newest token, step by step."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import torch
from hypothesis import given
from hypothesis import strategies as st

from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.decoding.sampling.verify import DraftsToVerify, Verification, follow, verify_drawn, verify_greedy
from foresay.models.layout.tree import Tree
from tests.support.strategies import drawn_trees

VOCABULARY = 5


@dataclass(frozen=True)
class Walk:
    rows: list[int]
    tokens: list[int]


def walk(tree: Tree, tokens: list[int], count: int, choose: Callable[[int], int]) -> Walk:
    """Choose at the newest token; where the choice is a draft there, choose at it, and so on."""
    row = tree.drafts - count
    done = Walk([], [])
    while True:
        done.rows.append(row)
        done.tokens.append(choose(row))
        after = [draft for draft in range(row + 1, tree.drafts + 1) if tree.parents[draft - 1] == row]
        row = next((draft for draft in after if tokens[draft] == done.tokens[-1]), -1)
        if row < 0:
            return done


def read(verdict: Verification) -> list[Walk]:
    """What stays of every sequence."""
    lengths = (verdict.accepted + 1).tolist()
    every = zip(verdict.path.tolist(), verdict.tokens.tolist(), lengths)
    return [Walk(path[:length], tokens[:length]) for path, tokens, length in every]


@st.composite
def asked_drafts(draw: st.DrawFn) -> DraftsToVerify:
    """Drafts of a batch: siblings differ, and in a chain sequences may have different numbers of drafts."""
    tree, batch = draw(drawn_trees(7)), draw(st.integers(1, 3))
    sequences = []
    for _ in range(batch):
        tokens = [draw(st.integers(0, VOCABULARY - 1))]
        for draft, parent in enumerate(tree.parents):
            taken = {tokens[other + 1] for other in range(draft) if tree.parents[other] == parent}
            # More siblings than tokens: some repeat no token of the vocabulary.
            tokens.append(draw(st.sampled_from(sorted({*range(VOCABULARY), 90 + draft} - taken))))
        sequences.append(tokens)
    least = 0 if tree.is_chain else tree.drafts
    counts = tuple(draw(st.integers(least, tree.drafts)) for _ in range(batch))
    return DraftsToVerify(torch.tensor(sequences), counts, tree, None, [[b] for b in range(batch)])


@given(asked_drafts(), st.randoms(use_true_random=False))
def test_following_the_choices_is_the_walk(asked: DraftsToVerify, random: Random) -> None:
    choices = [[random.randrange(VOCABULARY) for _ in row] for row in asked.tokens.tolist()]
    sequences = zip(asked.tokens.tolist(), asked.counts, choices)
    expected = [walk(asked.tree, tokens, count, chosen.__getitem__) for tokens, count, chosen in sequences]
    verdict = follow(torch.tensor(choices), asked)
    assert read(verdict) == expected
    assert verdict.last.tolist() == [done.rows[-1] for done in expected]
    assert verdict.newest.tolist() == [done.tokens[-1] for done in expected]
    assert verdict.path.shape[1] == asked.tree.depths[-1] + 1
    assert ((verdict.path >= 0) & (verdict.path <= asked.tree.drafts)).all(), "slots beyond the call"
    scores = torch.nn.functional.one_hot(torch.tensor(choices), VOCABULARY)
    assert read(verify_greedy(scores, asked)) == expected


@given(asked_drafts(), st.integers(0, 99))
def test_a_drawn_walk_takes_one_draw_for_each_token(asked: DraftsToVerify, seed: int) -> None:
    """The walk draws the same with the same seed, and what is drawn next is the same: other rows took no draw."""
    p = torch.rand((*asked.tokens.shape, VOCABULARY), generator=torch.Generator().manual_seed(seed)).softmax(-1)
    rng, later = SeededNumbers(seed, range(len(p))), torch.full((len(p), 9), 1 / 9)
    rng.begin(asked.tokens.shape[1], p.device)
    verdict = verify_drawn(p, asked, rng)
    said = read(verdict)
    assert verdict.used is not None
    rng.settle(verdict.used.tolist())
    next_drawn = [draw(rng, later, b) for b in range(len(p))]
    for b, (tokens, count) in enumerate(zip(asked.tokens.tolist(), asked.counts)):
        alone = SeededNumbers(seed, [b])
        assert said[b] == walk(asked.tree, tokens, count, lambda row: draw(alone, p[b, row][None], 0))  # noqa: B023
        assert next_drawn[b] == draw(alone, later[:1], 0)


def draw(rng: SeededNumbers, distributions: torch.Tensor, sequence: int) -> int:
    """What the next number of a sequence draws from its row of `distributions` (B, V); it is then used."""
    rng.begin(1, distributions.device)
    drawn = rng.pick(distributions[:, None], torch.zeros(len(distributions), 1, dtype=torch.int64))
    rng.settle([int(place == sequence) for place in range(len(distributions))])
    return int(drawn[sequence])


@given(asked_drafts())
def test_the_ids_before_a_row_are_those_on_its_way(asked: DraftsToVerify) -> None:
    for b, (prefixes, count) in enumerate(zip(asked.prefixes(), asked.counts)):
        assert len(prefixes) == count + 1
        first = asked.tree.drafts - count
        for row, ids in enumerate(prefixes, first):
            way, node = [], row
            while node > first:
                way.append(int(asked.tokens[b, node]))
                node = asked.tree.parents[node - 1]
            assert ids == [b, *reversed(way)]
