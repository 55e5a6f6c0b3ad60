"""Where text goes: results to stdout, chatter to stderr."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table

from foresay.foundation import heartbeat
from foresay.foundation.errors import ConfigError
from foresay.foundation.files import write_json

PIPE_WIDTH, WIDEST = 160, 10_000
"""Columns of a table that goes into a pipe or a file, and more than any table needs."""


class Terminal(Console):
    """A console that shows text as it is, without colour or bold where NO_COLOR says so.

    It lets `main` deal with a reader that goes away.
    """

    def __init__(self, **settings: Any) -> None:
        # rich's own way with NO_COLOR leaves bold and dim.
        plain: dict[str, Any] = {"color_system": None} if os.environ.get("NO_COLOR") else {}
        super().__init__(markup=False, **plain, **settings)
        self.last_said = monotonic()
        """When something was printed last, in seconds of `monotonic`."""

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich prints; lines are wrapped between words where they go to a terminal, and left whole elsewhere."""
        self.last_said = monotonic()
        if self.is_terminal:
            settings = {"soft_wrap": False} | settings
        super().print(*objects, **settings)

    def on_broken_pipe(self) -> None:
        """Pass it on: rich itself would exit with status 1, which means here that a check failed."""
        raise BrokenPipeError


OUT, ERR = Terminal(soft_wrap=True), Terminal(stderr=True, soft_wrap=True)


@contextmanager
def signs_of_life(verb: str) -> Iterator[None]:
    """Say on stderr that `verb` is at work whenever nothing was said there for a while.

    On a terminal that ends with the first thing that the verb itself says: from then on it draws bars.
    """
    began = beaten = monotonic()

    def beat() -> None:
        nonlocal beaten
        if ERR.is_terminal and max(ERR.last_said, OUT.last_said) > beaten:
            return
        if monotonic() - ERR.last_said >= 2 * heartbeat.SECONDS:
            ERR.print(f"{verb}: at work for {heartbeat.span(monotonic() - began)}", highlight=False)
            beaten = ERR.last_said

    with heartbeat.beating(beat):
        yield


def print_table(table: RenderableType) -> None:
    """Print a table, or several, whole in a pipe too; a wide one runs over the terminal's edge with its words whole."""
    width = OUT.width if OUT.is_terminal else PIPE_WIDTH
    parts = table.renderables if isinstance(table, Group) else [table]
    roomy = OUT.options.update(max_width=WIDEST)
    needed = max((Measurement.get(OUT, roomy, part).minimum for part in parts if isinstance(part, Table)), default=0)
    fits = needed <= width and OUT.is_terminal
    (OUT if fits else Terminal(width=max(width, needed), force_terminal=OUT.is_terminal)).print(table)


def can_write(signs: str, encoding: str) -> bool:
    """Whether a terminal or file of this encoding can hold these signs."""
    try:
        signs.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def read_line() -> str:
    """A line that somebody types, edited and with those before it at hand where Python has readline.

    Raises EOFError at the end of the input, KeyboardInterrupt at Ctrl-C.
    """
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 (`input` uses it once it is there; Windows has none)
    if sys.stdin.isatty() and sys.stdout.isatty():
        return input("> ")
    # Without a terminal on both sides `input` would write its prompt among the answers.
    if ERR.is_terminal:
        ERR.print("> ", end="")
    return input()


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
