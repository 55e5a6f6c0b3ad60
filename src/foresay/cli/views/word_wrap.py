"""Lines broken between words in a text that comes piece by piece, as an answer does in a terminal."""

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

TAB = " " * 8
WIDE = "\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef"
"""Signs of scripts that put no spaces between words."""
PARTS = re.compile(rf"\n|[^\S\n]+|[{WIDE}]|[^\s{WIDE}]+")
"""A newline, spaces, a wide sign, or a piece of a word."""

Piece = tuple[str, int]
"""A text, and the step that it came with."""


class WordWrap:
    """Holds a word back until it is over; one that would cross the edge stands after a newline in place of its spaces.

    A word longer than a line is left to the terminal.
    """

    def __init__(self, width: int) -> None:
        """`width`: columns of the terminal."""
        self._width, self._column = width, 0
        self._spaces, self._word = list[Piece](), list[Piece]()

    def add(self, text: str, step: int) -> Iterator[Piece]:
        """What can be written now that `text` has come."""
        for part in PARTS.findall(text):
            wide = re.fullmatch(f"[{WIDE}]", part) is not None
            if wide or part.isspace():
                yield from self._close_word()
            if part == "\n":
                yield from (*self._spaces, (part, step))
                self._spaces, self._column = [], 0
            else:
                (self._spaces if part.isspace() else self._word).append((part, step))
            if wide:
                yield from self._close_word()

    def rest(self) -> Iterator[Piece]:
        """What was held back, where no more comes."""
        yield from self._close_word()
        yield from self._spaces
        self._spaces = []

    def _close_word(self) -> Iterator[Piece]:
        if not self._word:
            return
        wide, end = _columns(self._word), self._column + _columns((*self._spaces, *self._word))
        if self._column and end > self._width >= wide:
            self._spaces, end = [("\n", self._word[0][1])], wide
        yield from (*self._spaces, *self._word)
        self._column = end if end <= self._width else end % self._width
        self._spaces, self._word = [], []


def _columns(pieces: Sequence[Piece]) -> int:
    return sum(cell_len(text.replace("\t", TAB)) for text, _ in pieces)
