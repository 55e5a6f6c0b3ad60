"""Tokens to text as they come: whole characters only, and never the same text twice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from foresay.decoding.steps import Step


@dataclass(frozen=True, slots=True)
class StepText:
    """What one step added to the text."""

    step: int
    """Counted from 1."""
    text: str
    tokens: int
    drafted: int
    accepted: int


BROKEN = "�"
"""What a tokenizer shows of bytes that are no whole character yet."""


class Detokenizer:
    """The text of one growing answer; special tokens show only where that is asked for."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, special: bool = False) -> None:
        self._tokenizer, self._special = tokenizer, special
        self._tokens: list[int] = []
        # Tokens are decoded after those of the last piece: what stands before a token may change its space.
        self._start = self._read = 0

    def add(self, tokens: Sequence[int]) -> str:
        """The text that these tokens add; empty where they end inside a character."""
        self._tokens += tokens
        text = self._after()
        return "" if text.endswith(BROKEN) else self._take(text)

    def rest(self) -> str:
        """What is left when no more tokens come: at most a broken character."""
        return self._take(self._after())

    def _after(self) -> str:
        before, now = (self._decode(self._tokens[self._start : end]) for end in (self._read, len(self._tokens)))
        return now[len(before) :]

    def _take(self, text: str) -> str:
        if text:
            self._start, self._read = self._read, len(self._tokens)
        return text

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=not self._special)
        return text


def transcript(tokenizer: PreTrainedTokenizerBase, steps: Sequence[Step]) -> Iterator[StepText]:
    """The text of each step. A token may be part of a character; it shows with the step that completes it."""
    detokenizer = Detokenizer(tokenizer)
    for number, step in enumerate(steps, 1):
        text = detokenizer.add(step.tokens) + (detokenizer.rest() if number == len(steps) else "")
        yield StepText(number, text, len(step.tokens), step.drafted, step.accepted)
