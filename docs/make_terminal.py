"""Pictures of foresay in a terminal, drawn as SVG from what it shows there: a conversation, and verbs at two widths.

python docs/make_terminal.py [chat] [info] [generate] [bench]
"""

import os
import pty
import re
import select
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parent
ROWS, PATIENCE_SECONDS = 40, 120
CHAT_COLUMNS, WIDTHS = 96, (80, 120)
CHAT = "chat nano --layout quadratic --masks 4 --max-new-tokens 96"
ASKED = ("Tom has 3 boxes with 4 pens each. How many pens does he have?", "/stats", "/quit")
VERBS = {
    "info": "info smollm2",
    "generate": 'generate smollm2 "Why is the sky blue?" --stats --colour --max-new-tokens 64',
    "bench": "bench --help",
}


def typed(command: str, columns: int, asked: Sequence[str] = ()) -> str:
    """What a terminal shows, escape sequences included, of `foresay command` and of a person who types `asked`."""
    child, screen = pty.fork()
    if not child:
        os.environ.update(COLUMNS=str(columns), LINES=str(ROWS), TERM="xterm-256color", COLORTERM="truecolor")
        os.execv(sys.executable, [sys.executable, "-m", "foresay", *shlex.split(command)])
    seen, left = b"", list(asked)
    while select.select([screen], [], [], PATIENCE_SECONDS)[0]:
        try:
            seen += os.read(screen, 65536)
        except OSError:  # the other end is closed
            break
        if left and re.search(rb"> (\x1b\[0m)?$", seen):
            os.write(screen, f"{left.pop(0)}\n".encode())
    if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(f"foresay {command} ended with {status}:\n{seen.decode()}")
    return seen.decode()


def drawn(command: str, said: str, columns: int) -> str:
    """The SVG of a terminal that shows `said` below the command."""
    # Of what a bar redraws, the last state counts.
    shown = re.sub(r"\x1b\[[0-9;?]*[A-HJKhlsu]", "", said.replace("\r\n", "\n")).rstrip()
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=columns, file=nowhere, force_terminal=True, highlight=False)
        # A terminal breaks a line at its edge, wherever that falls.
        for line in Text.from_ansi(f"\x1b[1m$ foresay {command}\x1b[0m\n{shown}").split(allow_blank=True):
            cuts = range(columns, len(line), columns)
            for piece in line.divide(cuts):
                console.print(piece, no_wrap=True, overflow="ignore", crop=False)
        console.print()  # the picture's edge would cut the last line's descenders
    svg = console.export_svg(title=f"foresay {command.split(maxsplit=1)[0]}")
    # The fonts would come from the network; a viewer's own will do.
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


def chat() -> None:
    """The conversation."""
    said = typed(CHAT, CHAT_COLUMNS, ASKED)
    help_line = said.rindex("\n", 0, said.index("/system")) + 1
    (DOCS / "chat.svg").write_text(drawn(CHAT, said[help_line:], CHAT_COLUMNS))


def verb(name: str) -> None:
    """One verb, at each width."""
    for columns in WIDTHS:
        svg = drawn(VERBS[name], typed(VERBS[name], columns), columns)
        (DOCS / "figures" / f"terminal-{name}-{columns}.svg").write_text(svg)


def main() -> None:
    """Make those that are named, or all."""
    for name in sys.argv[1:] or ("chat", *VERBS):
        if name == "chat":
            chat()
        else:
            verb(name)


if __name__ == "__main__":
    main()
