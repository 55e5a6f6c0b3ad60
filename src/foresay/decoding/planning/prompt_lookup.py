"""Prompt lookup: what followed the same tokens earlier in prompt and answer is a draft that costs no row of a mask.

Saxena 2023 (github.com/apoorvumang/prompt-lookup-decoding); transformers has it as `prompt_lookup_num_tokens`. A match
is no draw, so it is verified as any draft that was not drawn by chance, and sampling stays exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice, takewhile

LONGEST, SHORTEST = 4, 2
"""Tokens of an n-gram that is looked up; a longer one is tried first."""
TOKENS = 8
"""Drafts that a match proposes."""


@dataclass(frozen=True, slots=True)
class Match:
    """The last tokens of a text stood in it before, and were followed by `tokens`."""

    tokens: tuple[int, ...]
    length: int
    """Tokens that agreed, n."""

    def agreement(self, said: Sequence[int]) -> int:
        """How many of its tokens, from the first, were said."""
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self.tokens, said)))


class NgramIndex:
    """Where the n-grams of a text stood last. The text may grow; only what is new is read.

    >>> NgramIndex([5, 6, 7, 8, 9, 5, 6, 7]).match(3)
    Match(tokens=(8, 9, 5), length=3)
    """

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self._after: dict[tuple[int, ...], int] = {}
        self._read = SHORTEST

    def match(self, most: int = TOKENS) -> Match | None:
        """What followed the longest n-gram at the text's end that stood in it before, at most `most` tokens.

        Where that reaches the end of the text, the text loops, and the match goes round once more.
        """
        ids, end = self.ids, len(self.ids)
        for place in range(self._read, end):
            for length in range(SHORTEST, min(LONGEST, place) + 1):
                self._after[tuple(ids[place - length : place])] = place
        self._read = max(end, SHORTEST)
        for length in range(min(LONGEST, end), SHORTEST - 1, -1):
            found = self._after.get(tuple(ids[end - length :]))
            if found is not None:
                return Match(tuple(islice(cycle(ids[found : found + most]), most)), length)
        return None
