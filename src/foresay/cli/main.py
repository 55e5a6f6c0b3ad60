"""The command line. Results go to stdout, chatter to stderr; exit 0 done, 1 a check failed, 2 bad use."""

import inspect
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Annotated, Any, Union

import tyro
from transformers.utils import logging

from foresay.cli.commands import VERBS
from foresay.cli.config_file import with_config
from foresay.cli.given import Given
from foresay.cli.terminal import ERR, signs_of_life
from foresay.foundation.errors import ForesayError

WAITING = ("serve", "chat")
"""Verbs that have nothing to do most of the time."""
ABOUT = "Make a pretrained language model say several tokens at once, with the same output."


def command_for(verb: str) -> Any:
    """The type that tyro parses: one of the verbs. The help of `verb` shows its examples, the others a summary."""
    kinds = [
        Annotated[kind, tyro.conf.subcommand(name, description=_about(kind, whole=name == verb))]  # type: ignore[valid-type]
        for name, kind in VERBS.items()
    ]
    return Annotated[Union[tuple(kinds)], tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes]  # noqa: UP007


def _about(kind: type, whole: bool) -> str:
    text = inspect.getdoc(kind) or ""
    return text if whole else text.split("\n\n")[0].replace("\n", " ")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is returned, and raised by the console script."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # the verbs have bars of their own
    try:
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
