"""One family of errors, and what settings are checked with.

Each message says what was asked, what was found and what to do; none needs a traceback.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints


class ForesayError(Exception):
    """Base of every error that a user's input can cause."""


class ConfigError(ForesayError):
    """A setting that cannot be: unknown key, impossible value, two settings that exclude each other."""


class UnsupportedBase(ForesayError):
    """A base model that foresay cannot drive, with the reason."""


class ArtefactError(ForesayError):
    """A folder that is no artefact, is torn, or belongs to another base."""


class DataError(ForesayError):
    """Training data or prompts that cannot be used, with file and line."""


class LossMaskError(DataError):
    """A chat template that would teach the wrong tokens: no matter of one bad row, so never passed over."""


class PromptError(ForesayError):
    """A request that the decoder cannot serve: empty batch, prompt past the context, too many masks."""


class BaseNotFound(ForesayError):
    """A base, tokenizer or user's LoRA that is neither embedded, nor in a folder, nor to be had from the hub."""


class DivergedError(ForesayError):
    """A training whose gradients are no numbers any more."""


class MissingPackage(ForesayError):
    """An extra that is not installed."""

    def __init__(self, need: str, extra: str) -> None:
        super().__init__(f"{need}, which is not installed here; run pip install 'foresay[{extra}]'")


class BusyError(ForesayError):
    """A request that comes when the queue is full: try again later."""


LONGEST_SAID = 400
"""Characters of what a library said that a message quotes."""


def first_line(said: object) -> str:
    """The first line of what a library said, with the next where it ends in a colon, or its kind if it said nothing."""
    lines = [line.strip() for line in str(said).strip().splitlines()]
    line = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]) or type(said).__name__
    return line if len(line) <= LONGEST_SAID else f"{line[:LONGEST_SAID]} ..."


@contextmanager
def in_words(kind: type[ForesayError], failed: str, cure: str, *also: type[BaseException]) -> Iterator[None]:
    """What the operating system refuses in this block becomes a `kind`: "`failed` (its reason); `cure`".

    So do the errors in `also`, those of a library that reads or writes.

        with in_words(DataError, f"{path} cannot be read", "restore it", ValueError):
            content = json.loads(path.read_text(encoding="utf-8"))
    """
    try:
        yield
    except (OSError, *also) as error:  # type: ignore[misc]
        raise kind(f"{failed} ({first_line(error)}); {cure}") from error


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


KINDS: dict[Any, tuple[type, str]] = {
    int: (Integral, "a whole number"), float: (Real, "a number"), bool: (bool, "True or False")
}  # fmt: skip
"""What a field of such a type may hold, and its name in words."""


def require_kinds(settings: Any, **more: Iterable[str]) -> None:
    """Raise `ConfigError` unless every field that is a number, a switch or a choice holds one.

    A field of a `Literal` type may hold one of its values, or of `more` by its name.
    """
    for name, kind in get_type_hints(type(settings)).items():
        value, choices = getattr(settings, name), (*get_args(kind), *more.get(name, ()))
        if get_origin(kind) is Literal:
            require(value in choices, f"{name} is {value!r}; give one of {', '.join(choices)}")
        elif kind in KINDS:
            fitting, words = KINDS[kind]
            # True is a number to Python, and so is what is none (NaN).
            fits = isinstance(value, fitting) and isinstance(value, bool) == (kind is bool)
            require(fits and not math.isnan(value), f"{name} is {value!r}; give {words}")


def require_at_least(settings: Any, least: float, *names: str) -> None:
    """Raise `ConfigError` unless these fields are `least` or more."""
    for name in names:
        value = getattr(settings, name)
        require(value >= least, f"{name} is {value}; give {least} or more")
