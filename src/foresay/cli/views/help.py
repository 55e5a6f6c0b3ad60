"""What `--help` and `--help-all` print, wrapped at the terminal's width."""

import inspect
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich.text import Text

from foresay.cli.flags import Flag, flags_of

ESSENTIAL = frozenset(
    {
        "api_key",
        "batch_sizes",
        "batch_tokens",
        "benchmarks",
        "columns",
        "contexts",
        "device",
        "dtype",
        "engine",
        "heads",
        "host",
        "layout",
        "layouts",
        "learning_rate",
        "masks",
        "max_length",
        "max_new_tokens",
        "name",
        "num_masks",
        "per_domain",
        "port",
        "prompts",
        "rank",
        "repeats",
        "results",
        "seed",
        "sequences",
        "steps",
        "strict",
        "tasks",
        "temperature",
        "threads",
        "top_p",
        "train",
    }
)
"""Options of settings that several verbs share which `--help` shows too; a verb's own it shows all."""
WIDEST, COLUMN, VERB_COLUMN = 100, 26, 13
"""Columns of help at most, and where the words begin, beside options and beside verbs."""
HEAD = (
    "Make a pretrained language model say several tokens at once, with the same output.",
    "A verb is explained by foresay VERB --help. Which foresay this is: foresay --version.",
)


def overview(about: Mapping[str, str]) -> Text:
    """The help of foresay itself: every verb in a sentence."""
    text = Text("usage: foresay VERB [options]\n")
    for sentence in HEAD:
        text.append(f"\n{_filled(sentence)}")
    text.append("\n\n")
    for verb, said in about.items():
        _entry(text, verb, said, VERB_COLUMN)
    return text


def help_of(words: str, kind: type, everything: bool) -> Text:
    """The help of the verb `words` (`data preview`), whose options `kind` has; without `everything` the basic ones."""
    flags = flags_of(kind)
    shown = flags if everything else [flag for flag in flags if not flag.group or flag.name in ESSENTIAL]
    text = Text(f"{_usage(words, flags)}\n\n")
    text.append(f"{description(kind)}\n\n")
    for flag in (flag for flag in shown if flag.positional):
        _entry(text, flag.spellings, flag.text)
    for group, own in groupby((flag for flag in shown if not flag.positional), lambda flag: flag.group):
        text.append(f"\n{_filled(group)}:\n" if group else "\nOptions:\n", style="bold")
        for flag in own:
            _entry(text, flag.spellings, _told(flag))
    text.append("\n")
    text.append(_filled(_more(words, len(flags) - len(shown))))
    return text


def verbs_help(words: str, kind: type, verbs: Mapping[str, type]) -> Text:
    """The help of a verb that has verbs of its own below it."""
    text = Text(f"usage: foresay {words} VERB [options]\n\n{description(kind)}\n\n")
    for verb, below in verbs.items():
        _entry(text, verb, " ".join((inspect.getdoc(below) or "").split("\n\n")[0].split()), VERB_COLUMN)
    text.append(f"\nEach is explained by foresay {words} VERB --help.")
    return text


def description(kind: type) -> str:
    """A command's docstring: paragraphs filled, examples as they are."""
    blocks = (inspect.getdoc(kind) or "").split("\n\n")
    return "\n\n".join(block if block.startswith("Examples:") else _filled(block) for block in blocks)


def _usage(words: str, flags: Sequence[Flag]) -> str:
    needed = [flag.spellings for flag in sorted(flags, key=lambda flag: not flag.positional) if flag.required]
    return _filled(" ".join(("usage: foresay", words, *needed, "[options]")), "       ")


def _told(flag: Flag) -> str:
    ends = "needed" if flag.required else f"default: {flag.default_text}" if flag.default_text else ""
    return f"{flag.text} ({ends})" if ends else flag.text


def _more(words: str, hidden: int) -> str:
    if not hidden:
        return "-h, --help says this."
    return f"foresay {words} --help-all shows {hidden} more options."


def _entry(text: Text, name: str, said: str, column: int = COLUMN) -> None:
    """A name and what it is, beside it or, where it is long, below."""
    lines = list(_wrapped(said, width() - column))
    text.append(f"  {name}", style="bold")
    beside = len(name) + 4 <= column
    text.append(" " * (column - len(name) - 2) if beside else "\n" + " " * column)
    text.append(("\n" + " " * column).join(lines) + "\n")


def _wrapped(said: str, columns: int) -> Iterator[str]:
    yield from textwrap.wrap(said, max(columns, 20), break_on_hyphens=False, break_long_words=False)


def _filled(paragraph: str, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(paragraph.split()),
        width(),
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def width() -> int:
    """Columns that are written on."""
    return min(shutil.get_terminal_size().columns, WIDEST)
