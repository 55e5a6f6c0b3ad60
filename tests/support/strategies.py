"""What hypothesis draws in more than one test."""

from hypothesis import strategies as st

from foresay.models.layout.tree import Tree


@st.composite
def drawn_trees(draw: st.DrawFn, most: int = 5) -> Tree:
    """Any tree of at most `most` drafts."""
    parents: list[int] = []
    for draft in range(draw(st.integers(0, most))):
        parents.append(draw(st.integers(max(parents, default=0), draft)))
    return Tree(tuple(parents))
