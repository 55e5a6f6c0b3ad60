"""One sequence, and which of its tokens carry loss."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from foresay.foundation.hashes import SHORT, sha256

TEXT_PROMPT_TOKENS = 16
"""Tokens of a plain text that stand as its prompt when it is decoded."""


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence of training data."""

    ids: tuple[int, ...]
    """Token ids."""
    answer: tuple[bool, ...]
    """Which tokens are to be predicted; prompt tokens are not."""
    domain: str = ""
    """Free label, for figures by domain."""
    place: str = field(default="", compare=False)
    """File and line it was read from, where that is still known."""

    @property
    def carries(self) -> list[bool]:
        """Row t predicts token t + 1: true where that one is part of an answer (so for the last prompt token)."""
        return [*self.answer[1:], False]

    @property
    def prompt(self) -> tuple[int, ...]:
        """Tokens before the first answer token, or the first few of a plain text."""
        first = self.answer.index(True)
        return self.ids[: max(first, min(TEXT_PROMPT_TOKENS, len(self.ids) - 1) if first <= 1 else first)]


class Examples(Sequence[Example]):
    """Examples that are made when they are asked for."""

    @abstractmethod
    def at(self, place: int) -> Example:
        """The example at `place`, counted from the first."""

    @property
    def content(self) -> dict[str, Any]:
        """Number and hash of the examples, ready for JSON."""
        content = sha256(f"{example.ids} {example.answer}" for example in self)
        return {"examples": len(self), "sha256": content[:SHORT]}

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        places = range(len(self))[index]
        return self.at(places) if isinstance(places, int) else [self.at(place) for place in places]
