"""How drafts are linked: in a chain, or branching. Pure: no rows, no model.

Letters: N drafts, P nodes with drafts after them.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Level:
    """The drafts at one depth of a tree."""

    parents: Tensor | None
    """(P,) int64: nodes of the level above that they stand after; None: all of it, in order."""
    width: int
    """Most drafts after one of them."""
    places: Tensor | None
    """(n,) int64: each draft's place among (P, width) candidates, best first; None: there is one for each parent."""


@dataclass(frozen=True, slots=True)
class Branches:
    """A tree as tensors on one device."""

    parents: Tensor
    """(N + 1,) int64: node after which each node stands; the root's own for itself."""
    ways: Tensor
    """(N + 1, N + 1) bool: node u stands on the way from the root to node n, n itself included."""
    depths: Tensor
    """(N + 1,) int64: distance of every node from the root."""
    levels: tuple[Level, ...]
    """Drafts 1, 2, ... after the root."""


@dataclass(frozen=True, slots=True)
class Tree:
    """How drafts are linked: node 0 is the root, a verified token, the others are drafts, in breadth-first order.

    So a prefix of a tree is a tree, and cutting drafts off its end is always allowed. The best candidate after a node
    comes first among its siblings.
    """

    parents: tuple[int, ...] = ()
    """The node after which each draft (node 1, 2, ...) stands."""

    def __post_init__(self) -> None:
        before = (0, *self.parents)
        for draft, parent in enumerate(self.parents, 1):
            if not before[draft - 1] <= parent < draft:
                raise ValueError(f"{self.parents} is no tree in breadth-first order: see draft {draft}")

    @classmethod
    def chain(cls, drafts: int) -> "Tree":
        """Each draft after the one before."""
        return cls(tuple(range(drafts)))

    @property
    def drafts(self) -> int:
        """Nodes but the root."""
        return len(self.parents)

    @property
    def is_chain(self) -> bool:
        """No node has two drafts after it."""
        return self.parents == tuple(range(self.drafts))

    @property
    def depths(self) -> tuple[int, ...]:
        """Distance of every node from the root, which is its own first."""
        depths = [0]
        for parent in self.parents:
            depths.append(depths[parent] + 1)
        return tuple(depths)

    def first(self, drafts: int) -> "Tree":
        """With at most so many drafts."""
        return Tree(self.parents[:drafts])

    def within(self, depth: int) -> "Tree":
        """The drafts at most so far after the root."""
        return self.first(sum(there <= depth for there in self.depths) - 1)

    def draw(self, device: torch.device) -> Branches:
        """The tree as tensors, made once for each device."""
        return _branches(self, device)


@lru_cache(maxsize=256)
def _branches(tree: Tree, device: torch.device) -> Branches:
    ways = torch.eye(tree.drafts + 1, dtype=torch.bool)
    for draft, parent in enumerate(tree.parents, 1):
        ways[draft] |= ways[parent]
    parents = torch.tensor((0, *tree.parents))
    depths = tree.depths
    levels = []
    for depth in range(1, depths[-1] + 1):
        above = [node for node, there in enumerate(depths) if there == depth - 1]
        after = [above.index(parent) for parent in tree.parents if parent in above]
        levels.append(_level(after, len(above), device))
    return Branches(parents.to(device), ways.to(device), torch.tensor(depths, device=device), tuple(levels))


def _level(parents: list[int], above: int, device: torch.device) -> Level:
    """The level whose drafts stand after these of the `above` nodes over it, siblings side by side."""
    distinct = sorted(set(parents))
    width = max(parents.count(parent) for parent in distinct)
    ranks = [place - parents.index(parent) for place, parent in enumerate(parents)]
    places = [distinct.index(parent) * width + rank for parent, rank in zip(parents, ranks)]
    return Level(
        None if len(distinct) == above else torch.tensor(distinct, device=device),
        width,
        None if width == 1 else torch.tensor(places, device=device),
    )
