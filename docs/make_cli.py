"""Write docs/reference/cli.md from the command line itself."""

import contextlib
import io
import os
from pathlib import Path

os.environ["COLUMNS"] = "100"
os.environ["NO_COLOR"] = "1"

from foresay.cli.commands import VERBS
from foresay.cli.main import main

PAGE = Path(__file__).parent / "reference" / "cli.md"
HEAD = (
    "Everything that `--help-all` says; `--help` shows the options that most people use. Made by `make docs`; a test "
    "keeps it fresh."
)


def helped(arguments: list[str]) -> str:
    """What `foresay ARGUMENTS --help-all` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*arguments, "--help-all"])
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def page() -> str:
    """The whole page."""
    parts = ["# Command line", HEAD, "```text", helped([]), "```"]
    below = [f"{verb} {name}" for verb in VERBS for name in VERBS.below(verb)]
    for verb in (*VERBS, *below):
        parts += [f"## foresay {verb}", "```text", helped(verb.split()), "```"]
    return "\n\n".join(parts).replace("```text\n\n", "```text\n").replace("\n\n```\n", "\n```\n").rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
