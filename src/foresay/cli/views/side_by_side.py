"""The same question answered twice, in two columns that grow."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from foresay.cli.views.text import colour_of
from foresay.decoding.detokenizer import Detokenizer
from foresay.decoding.steps import Step

WIDTH = 80
"""Columns of the terminal that are used at most."""


@dataclass(slots=True)
class Answering:
    """One answer as it grows, the tokens of each step in one colour."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    text: Text = field(default_factory=Text)
    tokens: int = 0
    steps: int = 0
    seconds: float = 0.0
    _began: float = 0.0
    _detokenizer: Detokenizer | None = None

    def begin(self) -> None:
        """Start the clock."""
        self._detokenizer, self._began = Detokenizer(self.tokenizer), perf_counter()

    def hear(self, index: int, step: Step) -> None:
        """Take in a step."""
        assert self._detokenizer is not None, "begin comes first"
        self.seconds = perf_counter() - self._began
        self.text.append(self._detokenizer.add(step.tokens), style=colour_of(self.steps))
        self.tokens += len(step.tokens)
        self.steps += 1

    @property
    def line(self) -> str:
        """The figures so far."""
        if not self.tokens:
            return "waits"
        rate = self.tokens / self.seconds
        return f"{self.tokens} tokens in {self.steps} steps, {self.seconds:.1f} s, {rate:.1f} tokens/s"


@dataclass(slots=True)
class SideBySide:
    """Two answers to one question."""

    left: Answering
    right: Answering
    console: Console

    def view(self) -> Group:
        """Both texts as they are now, and their figures below."""
        width = min(self.console.width, WIDTH)
        table = Table(width=width)
        for answer in (self.left, self.right):
            table.add_column(answer.name, ratio=1, overflow="fold")
        table.add_row(self.left.text, self.right.text)
        return Group(table, *(Text(f"{answer.name}: {answer.line}", "dim") for answer in (self.left, self.right)))

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show both while the block runs; without a terminal, once at its end."""
        if not self.console.is_terminal:
            yield
            self.console.print(self.view())
            return
        with Live(console=self.console, get_renderable=self.view, refresh_per_second=10, vertical_overflow="visible"):
            yield
