"""The picture of `foresay chat`: a real conversation in a terminal of its own, drawn as SVG.

python docs/make_terminal.py
"""

import os
import pty
import re
import select
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS, ROWS, PATIENCE_SECONDS = 96, 40, 120
ASKED = ("Tom has 3 boxes with 4 pens each. How many pens does he have?", "/stats", "/quit")
COMMAND = ("chat", "nano", "--layout", "quadratic", "--masks", "4", "--max-new-tokens", "96")


def typed() -> str:
    """What the terminal shows, escape sequences included, once the conversation is over."""
    child, screen = pty.fork()
    if not child:
        os.environ.update(COLUMNS=str(COLUMNS), LINES=str(ROWS), TERM="xterm-256color", COLORTERM="truecolor")
        os.execv(sys.executable, [sys.executable, "-m", "foresay", *COMMAND])
    seen, left = b"", list(ASKED)
    while select.select([screen], [], [], PATIENCE_SECONDS)[0]:
        try:
            seen += os.read(screen, 65536)
        except OSError:  # the other end is closed
            break
        if left and re.search(rb"> (\x1b\[0m)?$", seen):
            os.write(screen, f"{left.pop(0)}\n".encode())
    os.waitpid(child, 0)
    return seen.decode()


def main() -> None:
    """Make it."""
    said = typed()
    # Of what the bar of the calibration redraws, the last state counts.
    shown = re.sub(r"\x1b\[[0-9;?]*[A-HJKhlsu]", "", said[said.index("/reset forgets") :].replace("\r\n", "\n"))
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print("[bold]$ foresay " + " ".join(COMMAND) + "[/bold]")
        console.print(Text.from_ansi(shown))
    drawn = console.export_svg(title="foresay chat")
    # The fonts would come from the network; a viewer's own will do.
    drawn = re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    (Path(__file__).parent / "chat.svg").write_text(drawn)


if __name__ == "__main__":
    main()
