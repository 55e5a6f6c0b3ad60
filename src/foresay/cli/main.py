"""The command line. Results go to stdout, chatter to stderr; exit 0 done, 1 a check failed, 2 bad use."""

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Union

import tyro
from rich.text import Text

from foresay import __version__
from foresay.cli.commands import VERBS
from foresay.cli.config_file import with_adapter, with_config
from foresay.cli.given import Given
from foresay.cli.terminal import ERR, OUT, signs_of_life
from foresay.cli.views.help import help_of, overview, verbs_help
from foresay.foundation.errors import ForesayError, first_line

WAITING = ("serve", "chat")
"""Verbs that have nothing to do most of the time."""
RESUMED = (("train",), ("pretrain",), ("study",), ("data", "generate"))
"""Verbs whose work is kept on the way."""
HELP = ("-h", "--help", "--help-all")


def command_for(verb: str) -> Any:
    """The type that tyro parses: one of the verbs. All but `verb` are stand-ins: nothing of theirs is imported."""
    kinds = [
        Annotated[VERBS[name] if name == verb else make_dataclass(name, []), tyro.conf.subcommand(name)]
        for name in VERBS
    ]
    return Annotated[Union[tuple(kinds)], tyro.conf.OmitArgPrefixes]  # noqa: UP007


def _help(arguments: Sequence[str]) -> bool:
    """Print help where it is asked for; whether it was."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    asked = [word for word in before if word in HELP]
    if not asked:
        return False
    verb, below = [*before, "", ""][:2]
    OUT.print(_help_text(verb, below, "--help-all" in asked), highlight=False)
    return True


def _help_text(verb: str, below: str, everything: bool) -> Text:
    """The help of a verb, of a verb below it, or of foresay where there is no such verb."""
    if verb not in VERBS:
        return overview({name: VERBS.summary(name) for name in VERBS})
    verbs = VERBS.below(verb)
    if below in verbs:
        return help_of(f"{verb} {below}", verbs[below], everything)
    return verbs_help(verb, VERBS[verb], verbs) if verbs else help_of(verb, VERBS[verb], everything)


def _plain_streams() -> None:
    """Where stdout or stderr is not UTF-8, write ? for what it cannot hold, and do not break off.

    A stream that whoever started us has closed, which Python has none for, is empty or takes all.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (as long as the process)
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
    try:
        status = _run(arguments)
        # A reader that went away shows itself here, and not when Python flushes at exit.
        sys.stdout.flush()
        return status
    except ForesayError as error:
        ERR.print(f"foresay: {error}", style="red", highlight=False)
        return 2
    except KeyboardInterrupt:
        goes_on = any(tuple(arguments[: len(verb)]) == verb for verb in RESUMED)
        on = "; the same command goes on from what is kept" if goes_on else ""
        ERR.print(f"foresay: interrupted; nothing half written was left behind{on}", highlight=False)
        return 130
    except BrokenPipeError:
        _leave_stdout()
        return 0
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError | TimeoutError):
            raise  # of a network, or a library's own kind: no path is the cure
        with suppress(OSError):
            ERR.print(f"foresay: {error}; give paths that can be read and written, on a disk with room", style="red")
        _leave_stdout()
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_full(error):
            raise
        cure = "give smaller batches, shorter texts, a smaller base, or --quantize"
        ERR.print(f"foresay: memory is full ({first_line(error)}); {cure}", style="red", highlight=False)
        return 2


def _is_full(error: Exception) -> bool:
    """Whether memory is: torch says so in an error of its own on a device, and in words on a CPU."""
    words = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or words


def _leave_stdout() -> None:
    """Write what is left; where that cannot be, drop it, or Python would complain again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    """Version, help or a verb."""
    if arguments[:1] == ["--version"]:
        print(f"foresay {__version__}")
        return 0
    if _help(arguments):
        return 0
    verb = arguments[0] if arguments else ""
    with nullcontext() if verb in WAITING or verb not in VERBS else signs_of_life(verb):
        return _carry_out(verb, arguments)


def _carry_out(verb: str, arguments: list[str]) -> int:
    """Read the arguments, which may import torch first, and do what they say."""
    if verb in VERBS:
        _quiet()
    command = tyro.cli(command_for(verb), prog="foresay", args=with_adapter(with_config(arguments)))
    if hasattr(command, "given"):
        command = replace(command, given=Given.on(arguments))
    return int(command.run())


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    """A warning of our own is one sentence; that of another package comes with its place, as Python has it."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        ERR.print(f"foresay: {message}", style="yellow", highlight=False)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


def entry() -> None:
    """The console script."""
    warnings.showwarning = _show_warning
    status = main()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # A thread of gloo may still hold tensors. It would ask for an interpreter that is ending, which aborts the
        # process (pytorch/pytorch, pull request 179291), and torchrun would take the whole run for failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
