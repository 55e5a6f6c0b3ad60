"""Lines are broken between words, however the text comes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from foresay.cli.views.word_wrap import WordWrap

WIDTH = 12


def wrapped(text: str, cuts: list[int] | None = None) -> str:
    """The text as it is written when it comes in pieces that end at these places."""
    wrap, written = WordWrap(WIDTH), ""
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts or ())})
    for step, (start, end) in enumerate(pairwise(places)):
        written += "".join(piece for piece, _ in wrap.add(text[start:end], step))
    return written + "".join(piece for piece, _ in wrap.rest())


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", [""]),
        ("one two three", ["one two", "three"]),
        ("exactlytwelv e", ["exactlytwelv", "e"]),
        ("a  exactlytwelv", ["a", "exactlytwelv"]),
        ("    return words that wrap", ["    return", "words that", "wrap"]),
        ("one\n\ntwo three four", ["one", "", "two three", "four"]),
        ("a longerthanaline word", ["a longerthanaline word"]),
        ("a\ttwelve", ["a", "twelve"]),
        ("日本語の文章は空白がない", ["日本語の文章", "は空白がない"]),
        ("say 日本語の文章", ["say 日本語の", "文章"]),
        ("end  ", ["end  "]),
    ],
)
def test_words_stay_whole(text: str, lines: list[str]) -> None:
    assert wrapped(text).split("\n") == lines


@given(st.text("ab \n\t日", max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_pieces_and_whole_are_written_alike(text: str, cuts: list[int]) -> None:
    assert wrapped(text, cuts) == wrapped(text)


@given(st.lists(st.text("abc日", min_size=1, max_size=5), max_size=20))
def test_no_line_is_too_long_and_no_word_is_lost(words: list[str]) -> None:
    written = wrapped(" ".join(words))
    assert all(cell_len(line) <= WIDTH for line in written.split("\n"))
    assert "".join(written.split()) == "".join(words)


def test_what_came_with_a_step_keeps_it() -> None:
    wrap = WordWrap(WIDTH)
    assert list(wrap.add("a thr", 0)) == [("a", 0)]
    assert list(wrap.add("ee ", 1)) == [(" ", 0), ("thr", 0), ("ee", 1)]
    assert list(wrap.rest()) == [(" ", 1)]
