"""The tree of drafts against every other tree of its size."""

import itertools
from collections.abc import Iterator

import pytest

from foresay.decoding.config import DecodeConfig
from foresay.decoding.planning.draft_tree import Path, expected, topology, tree_for
from foresay.models.layout.tree import Tree
from tests.support.toys import LLAMA, adapted

CHANCES = [(0.8, 0.7, 0.6), (0.5, 0.5, 0.5), (0.3, 0.9, 0.2), (0.9, 0.1), (0.2, 0.0, 0.5), (1.0, 1.0)]


def paths_of(tree: Tree) -> list[Path]:
    """The ranks on the way to every draft."""
    paths: list[Path] = [()]
    for draft, parent in enumerate(tree.parents):
        paths.append((*paths[parent], tree.parents[:draft].count(parent)))
    return paths[1:]


def trees(depth: int, branches: int, drafts: int) -> Iterator[frozenset[Path]]:
    """Every tree of so many drafts."""
    seen = {frozenset[Path]()}
    for _ in range(drafts):
        grown = set()
        for tree in seen:
            for parent in [(), *tree]:
                child = (*parent, next(rank for rank in itertools.count() if (*parent, rank) not in tree))
                if len(child) <= depth and child[-1] < branches:
                    grown.add(tree | {child})
        seen = grown
    yield from seen


@pytest.mark.parametrize("branches", [1, 2, 3])
@pytest.mark.parametrize("chances", CHANCES, ids=str)
def test_no_tree_of_its_size_is_expected_to_keep_more(chances: tuple[float, ...], branches: int) -> None:
    for drafts in range(1, 7):
        tree = topology(chances, branches, drafts)
        paths = paths_of(tree)
        worth = sum(expected(path, chances) for path in paths)
        others = [sum(expected(path, chances) for path in other) for other in trees(len(chances), branches, drafts)]
        if others:
            assert tree.drafts == drafts
            assert worth == pytest.approx(max(others), abs=1e-12)
        assert max(map(len, paths)) <= len(chances)
        assert max(rank for path in paths for rank in path) < branches


def test_the_chance_of_a_draft_is_a_product_along_its_way() -> None:
    assert expected((0, 0), (0.7, 0.4)) == pytest.approx(0.28)
    assert expected((1, 0), (0.7, 0.4)) == pytest.approx(0.1 * 0.4)
    assert expected((2,), (0.7,)) == pytest.approx(0.05)
    assert expected((3, 1), (0.7, 0.4)) == pytest.approx(0.025 * 0.2)
    assert expected((1,), (0.1,)) == pytest.approx(0.1), "the second best is never better than the best"


def test_sure_guesses_are_worth_a_chain_and_unsure_ones_branch() -> None:
    assert topology((0.99,) * 4, 3, 4) == Tree.chain(4)
    assert topology((0.4, 0.1), 3, 3) == Tree((0, 0, 0))
    assert topology((0.9, 0.9), 1, 9) == Tree.chain(2), "no more drafts than there is room for"


def test_the_tree_of_a_model() -> None:
    mtp = adapted(LLAMA)
    for layout in ("plain", "linear", "quadratic", "planned"):
        assert tree_for(mtp, DecodeConfig(layout=layout)) == Tree.chain(8)
    tree = tree_for(mtp, DecodeConfig(layout="tree", masks=3, branches=2, nodes=9))
    assert tree.drafts == 9
    assert tree.depths[-1] <= 3
    assert max(map(tree.parents.count, tree.parents)) == 2
    assert not tree.is_chain
    assert tree_for(mtp, DecodeConfig(layout="tree", branches=1)) == Tree.chain(8)
    assert tree_for(mtp, DecodeConfig(layout="tree", masks=1, branches=500, nodes=500)) == Tree((0,) * 96)
