"""Grammars over toy vocabularies, and what plain decoding says under them, by a loop of its own."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import llguidance
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from transformers import PreTrainedModel

from foresay.decoding.sampling.grammar import Grammar

STOP = 0
MERGED = ("true", "false", '{"', '":', '", "', '"}', "], ", "the", "in", "an", "12", "ab", "ba", "  ")
"""Tokens of several characters in place of rare ones: one text has several ways to be said."""


class _Words:
    """A tokenizer as llguidance wants it: bytes of each token."""

    def __init__(self, words: Sequence[str]) -> None:
        self.tokens = [word.encode() for word in words]
        self.special_token_ids = [STOP]
        self.eos_token_id, self.bos_token_id = STOP, None
        self.words = list(words)

    def __call__(self, text: str | bytes) -> list[int]:
        """The longest token first."""
        left, ids = text if isinstance(text, str) else text.decode(), list[int]()
        while left:
            best = max((word for word in self.words[1:] if left.startswith(word)), key=len)
            ids.append(self.words.index(best))
            left = left[len(best) :]
        return ids


@lru_cache
def words_of(vocabulary: int) -> tuple[str, ...]:
    """The text of every token; the first ends a text."""
    single = [chr(code) for code in range(32, 127) if chr(code) not in "`~^|@;%$&*\\<>="]
    return ("<end>", *[*single, *MERGED][: vocabulary - 1])


@lru_cache
def tokens_of(words: tuple[str, ...]) -> LLTokenizer:
    return LLTokenizer(llguidance.TokenizerWrapper(_Words(words)), n_vocab=len(words), eos_token=STOP)


def grammar(text: str, words: tuple[str, ...]) -> Grammar:
    """A grammar over these words, each a token."""
    matcher = LLMatcher(tokens_of(words), text)
    assert not matcher.is_error(), matcher.get_error()
    return Grammar(text, tokens_of(words), frozenset([STOP]), len(words))


def mask_after(grammar: Grammar, answer: Sequence[int]) -> torch.Tensor:
    """(V,) bool by a matcher that has read nothing else."""
    matcher: Any = LLMatcher(grammar.tokens, grammar.text)
    matcher.consume_tokens(list(answer))
    assert not matcher.is_error(), matcher.get_error()
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
    return torch.from_numpy(bits[: grammar.vocabulary].astype(bool))


@torch.no_grad()
def plain(
    model: PreTrainedModel,
    prompt: Sequence[int],
    grammar: Grammar,
    most: int,
    choose: Callable[[torch.Tensor, list[int]], int] = lambda scores, answer: int(scores.argmax()),
) -> list[int]:
    """Greedy decoding under a grammar, token by token, by the model's own forward over the whole text."""
    answer: list[int] = []
    while len(answer) < most and (not answer or answer[-1] != STOP):
        scores = model(torch.tensor([[*prompt, *answer]])).logits[0, -1]
        answer.append(choose(scores.masked_fill(~mask_after(grammar, answer), -torch.inf), answer))
    return answer
