"""Tokens that a grammar leaves no choice about. Without vLLM: its grammars are a toy here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foresay.serving.vllm.plugin.forced_drafts import MOST_PREFIXES, forced, with_forced

END = 0
WORDS = ("<end>", "a", "b", "c", *(one + other for one, other in product("abc", repeat=2)), "abc", "cab")


@dataclass
class Texts:
    """vLLM's `StructuredOutputGrammar` for a few texts, each followed by the end. Any tokens may spell them."""

    texts: frozenset[str]
    said: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(WORDS[token] for token in self.said if token != END)

    def allowed(self) -> list[int]:
        if self.is_terminated():
            return []
        words = [token for token in range(1, len(WORDS)) if self.goes_on(self.text + WORDS[token])]
        return [END] * (self.text in self.texts) + words

    def ways(self) -> set[str]:
        """What may follow."""
        return {one[len(self.text) :] for one in self.texts if one.startswith(self.text)}

    def nexts(self) -> set[str]:
        """Characters that may come next; empty: the end."""
        return {way[:1] for way in self.ways()}

    def goes_on(self, text: str) -> bool:
        return any(one.startswith(text) for one in self.texts)

    def is_terminated(self) -> bool:
        return END in self.said

    def accept_tokens(self, name: str, tokens: list[int]) -> bool:
        [token] = tokens
        if token not in self.allowed():
            return False
        self.said.append(token)
        return True

    def fill_bitmask(self, bits: torch.Tensor, index: int) -> None:
        bits[index] = bits_of(self.allowed())

    def rollback(self, tokens: int) -> None:
        del self.said[len(self.said) - tokens :]


def bits_of(tokens: list[int]) -> torch.Tensor:
    """(1,) int32 for a vocabulary of at most 32 tokens."""
    word = sum(1 << token for token in tokens)
    return torch.tensor([word - (word >> 31 << 32)], dtype=torch.int32)


def spelled(tokens: list[int]) -> list[str]:
    return [WORDS[token] for token in tokens]


def longer(grammar: Texts, drafts: list[int], most: int) -> list[int]:
    return with_forced(grammar, "one", drafts, most, torch.zeros(1, 1, dtype=torch.int32), spelled)


SOME = st.frozensets(st.text("abc", min_size=1, max_size=7), min_size=1, max_size=4)


def way_on(draw: Callable[..., Any], texts: frozenset[str], said: Sequence[int], most: int) -> list[int]:
    """At most so many tokens after `said` that the texts allow."""
    grammar = Texts(texts, list(said))
    for _ in range(draw(st.integers(0, most))):
        grammar.said += draw(st.sampled_from([[token] for token in grammar.allowed()] or [[]]))
    return grammar.said[len(said) :]


@given(SOME, st.data(), st.integers(0, 6))
def test_what_must_come_follows_the_drafts(texts: frozenset[str], data: st.DataObject, most: int) -> None:
    before = way_on(data.draw, texts, [], 3)
    drafts, grammar = way_on(data.draw, texts, before, most), Texts(texts, list(before))
    said = longer(grammar, drafts, most)
    assert grammar.said == before, "the grammar stays where it was"
    assert said[: len(drafts)] == drafts
    assert len(said) <= most
    for place in range(len(drafts), len(said)):
        read = Texts(texts, before + said[:place])
        assert said[place] in read.allowed()
        assert len(read.nexts()) == 1, "a choice is left to the base"
    end = Texts(texts, before + said)
    assert end.is_terminated() or len(said) == most or len(end.ways()) > 1, (
        "one text is drafted as far as there is room"
    )


def test_a_draft_that_the_grammar_forbids_gives_way_to_what_must_come() -> None:
    assert longer(Texts(frozenset({"abca", "abcb"})), [1, 3, 1], 4) == [1, WORDS.index("bc")]
    assert longer(Texts(frozenset({"abc", "acb"})), [2, 3], 4) == [], "in which tokens `a` comes is a choice"
    assert longer(Texts(frozenset({"abc"})), [1, 2], 4) == [1, 2, 3, END], "any tokens that the grammar allows"


@pytest.mark.parametrize(
    ("tokens", "found"),
    [
        ([5], 5),
        ([], None),
        ([1, 2], None),
        ([1, WORDS.index("ab"), WORDS.index("abc")], WORDS.index("abc")),
        ([1, WORDS.index("ab"), WORDS.index("ac")], None),
        ([END, 1], None),
        ([END], END),
    ],
)
def test_the_longest_of_the_tokens_that_one_text_begins_with(tokens: list[int], found: int | None) -> None:
    assert forced(tokens, spelled) == found


def test_many_tokens_are_a_choice() -> None:
    many = list(range(1, MOST_PREFIXES + 1))
    assert forced(many, lambda tokens: ["x" * token for token in tokens]) == MOST_PREFIXES
    assert forced([*many, 99], lambda tokens: ["x" * token for token in tokens]) is None


def test_the_last_bit_of_a_word_is_a_token() -> None:
    class Last(Texts):
        def allowed(self) -> list[int]:
            return [31]

    grammar = Last(frozenset())
    assert with_forced(grammar, "one", [], 1, torch.zeros(1, 1, dtype=torch.int32), lambda _: ["x"]) == [31]
