"""Where text goes: results to stdout, chatter to stderr."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType

from foresay.decoding.steps import Step
from foresay.foundation import heartbeat
from foresay.foundation.errors import ConfigError
from foresay.foundation.files import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PIPE_WIDTH = 160
"""Columns of a table that goes into a pipe or a file."""


class Terminal(Console):
    """A console that shows text as it is, and lets `main` deal with a reader that goes away."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, **settings)
        self.last_said = monotonic()
        """When something was printed last, in seconds of `monotonic`."""

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich prints."""
        self.last_said = monotonic()
        super().print(*objects, **settings)

    def on_broken_pipe(self) -> None:
        """Pass it on: rich itself would exit with status 1, which means here that a check failed."""
        raise BrokenPipeError


OUT, ERR = Terminal(soft_wrap=True), Terminal(stderr=True, soft_wrap=True)


@contextmanager
def signs_of_life(verb: str) -> Iterator[None]:
    """Say on stderr that `verb` is at work whenever nothing was said there for a while, unless it is a terminal."""
    began = monotonic()

    def beat() -> None:
        if monotonic() - ERR.last_said >= 2 * heartbeat.SECONDS:
            ERR.print(f"{verb}: at work for {heartbeat.span(monotonic() - began)}", highlight=False)

    with nullcontext() if ERR.is_terminal else heartbeat.beating(beat):
        yield


class AnswerStream:
    """Writes an answer to stdout as it grows, whole characters at a time."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        from foresay.decoding.detokenizer import Detokenizer  # noqa: PLC0415 (transformers takes seconds)

        self._detokenizer = Detokenizer(tokenizer)

    def tell(self, index: int, step: Step) -> None:
        """Write what a step added."""
        print(self._detokenizer.add(step.tokens), end="", flush=True)


def print_table(table: RenderableType) -> None:
    """Print a table, or several, whole in a pipe too."""
    (OUT if OUT.is_terminal else Terminal(width=PIPE_WIDTH)).print(table)


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(content, indent=2, ensure_ascii=False))


def tell_and_keep(content: dict[str, Any], tell: Callable[[], None] | None, out: Path | None) -> None:
    """Write the JSON of a result to `out`, and print it, as `tell` does or else as JSON.

    Raises ConfigError where it cannot be written; then the JSON is printed too: what took hours is not lost.
    """
    failed: ConfigError | None = None
    try:
        if out is not None:
            write_json(out, content)
    except ConfigError as error:
        failed = error
    if tell is not None:
        tell()
    if tell is None or failed:
        print_json(content)
    if failed:
        raise ConfigError(f"{failed}; the result stands above as JSON") from failed
