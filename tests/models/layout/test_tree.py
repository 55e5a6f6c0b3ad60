"""Trees of drafts against their definition, node by node."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foresay.models.layout.tree import Tree
from tests.support.strategies import drawn_trees

CPU = torch.device("cpu")

FAN = Tree((0, 0, 1, 1, 2, 3))


def way(tree: Tree, node: int) -> list[int]:
    """Nodes from the root to `node`."""
    return [0] if node == 0 else [*way(tree, tree.parents[node - 1]), node]


@given(drawn_trees(8))
def test_ways_and_depths_lead_to_the_root(tree: Tree) -> None:
    ways = [way(tree, node) for node in range(tree.drafts + 1)]
    assert list(tree.depths) == [len(nodes) - 1 for nodes in ways]
    branches = tree.draw(CPU)
    assert [row.nonzero()[:, 0].tolist() for row in branches.ways] == ways
    assert branches.parents.tolist() == [0, *tree.parents]
    assert tree.is_chain == (len(set(tree.parents)) == tree.drafts)


@given(drawn_trees(8), st.integers(0, 9))
def test_cut_at_the_end_or_at_a_depth_a_tree_keeps_its_shape(tree: Tree, most: int) -> None:
    assert tree.first(most).parents == tree.parents[:most]
    inside = tree.within(most)
    assert inside.depths == tuple(depth for depth in tree.depths if depth <= most)
    assert inside == tree.first(inside.drafts)


@given(drawn_trees(8))
def test_levels_place_the_best_candidates_first(tree: Tree) -> None:
    """Filled level by level with the names of the candidates, every draft is the next one after its parent."""
    names: list[tuple[int, ...]] = [()]
    above = names[:]
    for level in tree.draw(CPU).levels:
        parents = range(len(above)) if level.parents is None else level.parents
        candidates = [(*above[parent], rank) for parent in parents for rank in range(level.width)]
        above = candidates if level.places is None else [candidates[place] for place in level.places]
        names += above
    expected: list[tuple[int, ...]] = [()]
    for draft, parent in enumerate(tree.parents):
        expected.append((*expected[parent], tree.parents[:draft].count(parent)))
    assert names == expected
    assert len(set(names)) == tree.drafts + 1


@pytest.mark.parametrize("parents", [(1,), (0, 2), (0, 0, 2, 1), (0, 1, 0), (-1,)])
def test_what_is_no_tree_in_breadth_first_order_is_refused(parents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is no tree in breadth-first order"):
        Tree(parents)


def test_an_example() -> None:
    assert FAN.depths == (0, 1, 1, 2, 2, 2, 3)
    assert Tree.chain(3) == Tree((0, 1, 2))
    assert not FAN.is_chain
    assert FAN.within(1) == Tree((0, 0))
    assert Tree().draw(CPU).ways.equal(torch.ones(1, 1, dtype=torch.bool))
