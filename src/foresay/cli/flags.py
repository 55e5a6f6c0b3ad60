"""The options of a command as data, read off its dataclass: what help shows, and what a test compares across verbs."""

import ast
import inspect
import re
import textwrap
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

NEEDED = "needed"
"""Marks, in `Annotated`, an option that a command cannot do its work without, though it has a default: without it
other things can be asked for, as `--print-config`."""
WORDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH", bool: ""}
"""What a value is called where the option says nothing of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """An option or argument of a command."""

    name: str
    """As Python writes it: `max_new_tokens`."""
    takes: str
    """What stands after it, in words: `INT`, `{auto,on,off}`, `PATH ...`; empty for a switch."""
    text: str
    """What it does, in one line."""
    default: Any
    required: bool = False
    """Whether the command cannot do its work without it."""
    group: str = ""
    """What the options that it stands with are for; empty for the command's own."""
    positional: bool = False
    aliases: tuple[str, ...] = ()
    """Further spellings, with their dashes."""

    @property
    def spellings(self) -> str:
        """As it is written on a command line: `--color, --colour`, `--masks INT`."""
        if self.positional:
            return self.takes
        dashed = self.name.replace("_", "-")
        switch = [f"--no-{dashed}"] if self.default is True else []
        return f"{', '.join((f'--{dashed}', *self.aliases, *switch))} {self.takes}".rstrip()

    @property
    def default_text(self) -> str:
        """The default in words; empty where there is none worth a word."""
        if self.default is True:
            return "on"
        if self.required or self.default is False or self.default in (None, "", ()):
            return ""
        return " ".join(map(str, self.default)) if isinstance(self.default, tuple) else str(self.default)


def flags_of(kind: type, group: str = "") -> list[Flag]:
    """Every option of a command, in the order of its fields; those of settings inside it after its own.

    `kind` is a dataclass as tyro parses it: markers of `tyro.conf` are heeded, nested dataclasses are flattened.
    """
    hints = get_type_hints(kind, include_extras=True)
    shown = [entry for entry in fields(kind) if tyro.conf.Suppress not in _markers(hints[entry.name])]
    own = [entry for entry in shown if not is_dataclass(_bare(hints[entry.name]))]
    found = [_flag(kind, entry, hints[entry.name], group) for entry in own]
    for entry in shown:
        if entry not in own:
            found += _inside(_bare(hints[entry.name]), _default(entry))
    return found


def _inside(kind: type, made: Any) -> list[Flag]:
    """The options of settings inside a command, at the defaults that the command gives them."""
    sentence = re.split(r"[.;]\s(?![^(]*\))|\.$", inspect.getdoc(kind) or "")[0].replace("\n", " ")
    return [replace(flag, default=getattr(made, flag.name, flag.default)) for flag in flags_of(kind, sentence)]


def _flag(kind: type, entry: Field[Any], hint: Any, group: str) -> Flag:
    settings = [marker for marker in _markers(hint) if hasattr(marker, "metavar")]
    metavar = next((own.metavar for own in settings if own.metavar), None)
    positional = tyro.conf.Positional in _markers(hint)
    return Flag(
        name=entry.name,
        takes=metavar or (entry.name.upper() if positional else _takes(_bare(hint))),
        text=docs_of(kind).get(entry.name, ""),
        default=_default(entry),
        required=_default(entry) is MISSING or NEEDED in _markers(hint),
        group=group,
        positional=positional,
        aliases=tuple(alias for own in settings for alias in own.aliases or ()),
    )


@cache
def docs_of(kind: type) -> dict[str, str]:
    """The docstring under each field, in one line; of the dataclasses above it too."""
    found: dict[str, str] = {}
    for own in reversed([each for each in kind.__mro__ if is_dataclass(each)]):
        [code] = ast.parse(textwrap.dedent(inspect.getsource(own))).body
        assert isinstance(code, ast.ClassDef), "the source of a class is one"
        for entry, below in zip(code.body, code.body[1:]):
            if isinstance(entry, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[ast.unparse(entry.target)] = " ".join(str(ast.literal_eval(below.value)).split())
    return found


def _default(entry: Field[Any]) -> Any:
    return entry.default_factory() if entry.default_factory is not MISSING else entry.default


def _markers(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _takes(hint: Any) -> str:
    """What a value of this type is, in words."""
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    if get_origin(hint) is tuple:
        return f"{_takes(get_args(hint)[0])} ..."
    if get_origin(hint) in (Union, UnionType):
        return "|".join(_takes(part) for part in get_args(hint) if part is not NoneType)
    return WORDS[hint]
