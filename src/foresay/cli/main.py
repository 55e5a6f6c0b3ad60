"""The command line. Results go to stdout, chatter to stderr; exit 0 done, 1 a check failed, 2 bad use."""

import inspect
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import make_dataclass, replace
from typing import Annotated, Any, Union

import tyro

from foresay import __version__
from foresay.cli.commands import VERBS
from foresay.cli.config_file import with_config
from foresay.cli.given import Given
from foresay.cli.terminal import ERR, signs_of_life
from foresay.foundation.errors import ForesayError

WAITING = ("serve", "chat")
"""Verbs that have nothing to do most of the time."""
ABOUT = (
    "Make a pretrained language model say several tokens at once, with the same output. `foresay --version` says which "
    "foresay this is."
)


def command_for(verb: str) -> Any:
    """The type that tyro parses: one of the verbs. The help of `verb` shows its examples, the others a summary.

    The others are stand-ins, so that nothing of theirs is imported.
    """
    kinds = [
        Annotated[kind, tyro.conf.subcommand(name, description=about)]  # type: ignore[valid-type]
        for name, kind, about in (_whole(name) if name == verb else _brief(name) for name in VERBS)
    ]
    return Annotated[Union[tuple(kinds)], tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes]  # noqa: UP007


def _whole(name: str) -> tuple[str, type, str]:
    kind = VERBS[name]
    return name, kind, inspect.getdoc(kind) or ""


def _brief(name: str) -> tuple[str, type, str]:
    return name, make_dataclass(name, []), VERBS.summary(name)


def _plain_streams() -> None:
    """Where stdout or stderr is not UTF-8, write ? for what it cannot hold, and do not break off."""
    for stream in (sys.stdout, sys.stderr):
        encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "")
        if encoding != "utf8" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _quiet() -> None:
    """transformers says nothing between our results."""
    from transformers.utils import logging  # noqa: PLC0415 (takes seconds, and help needs none of it)

    logging.set_verbosity_error()
    logging.disable_progress_bar()  # the verbs have bars of their own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is returned, and raised by the console script."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _plain_streams()
    if arguments[:1] == ["--version"]:
        print(f"foresay {__version__}")
        return 0
    try:
        if arguments and arguments[0] in VERBS:
            _quiet()
        kind = command_for(arguments[0] if arguments else "")
        command = tyro.cli(kind, prog="foresay", description=ABOUT, args=with_config(arguments))
        if hasattr(command, "given"):
            command = replace(command, given=Given.on(arguments))
        with nullcontext() if arguments[0] in WAITING else signs_of_life(arguments[0]):
            return int(command.run())
    except ForesayError as error:
        ERR.print(f"foresay: {error}", style="red", highlight=False)
        return 2
    except KeyboardInterrupt:
        ERR.print("foresay: interrupted; nothing half written was left behind")
        return 130
    except BrokenPipeError:
        # The reader went away: not our failure, but Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def entry() -> None:
    """The console script."""
    status = main()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # A thread of gloo may still hold tensors. It would ask for an interpreter that is ending, which aborts the
        # process (pytorch/pytorch, pull request 179291), and torchrun would take the whole run for failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
