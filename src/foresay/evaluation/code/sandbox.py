"""Run a program that a model wrote, in a process of its own, and hear whether it passed.

What holds it: limits of the kernel on CPU time, memory and written files (none); a wall clock; an empty folder as its
place; no environment; Python without site packages. Where the machine lets users make namespaces (`unshare`), it has no
network at all. Inside Python an audit hook refuses sockets, other processes and writing: `child.py`.

This guards against what a model writes by accident. It is no wall against a program that means harm: without a network
namespace the hook alone keeps it from the network, and files that the user may read can be read. Run what you do not
trust in a container or a virtual machine as well.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from foresay.foundation.errors import ConfigError

CHILD = Path(__file__).with_name("child.py")
PATIENCE = 12
"""Seconds of wall clock for each of CPU time: a busy machine fails no program, and one that sleeps ends."""
Verdict = Literal["passed", "failed", "time", "memory"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program fared."""

    verdict: Verdict
    """`time` and `memory`: it needed more than it may have."""
    detail: str = ""
    """The kind of its error, where it had one."""

    def __str__(self) -> str:
        return f"{self.verdict} {self.detail}".strip()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use."""

    cpu_seconds: int = 5
    memory_bytes: int = 2**29
    """Address space, Python's own (about 20 MiB) included."""


def run_program(program: str, limits: Limits) -> Outcome:
    """Run Python source to its end; it passed where its last line was reached without an error.

    Raises ConfigError where the system is not Linux.

    >>> run_program("assert 1 + 1 == 2", Limits()).verdict
    'passed'
    """
    if sys.platform != "linux":
        raise ConfigError(f"code is run under Linux's limits alone, and this is {sys.platform}; use a Linux machine")
    with TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*network_namespace(), *_python(limits)],
            cwd=folder,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            word, _ = process.communicate(program.encode(errors="replace"), PATIENCE * limits.cpu_seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Outcome("time", "wall clock")
    return _outcome(word.decode(errors="replace"), process.returncode)


def run_programs(programs: Iterable[str], limits: Limits) -> dict[str, Outcome]:
    """The outcome of each program, equal ones run once, as many at a time as there are CPUs for this process."""
    different = list(dict.fromkeys(programs))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return dict(zip(different, pool.map(lambda program: run_program(program, limits), different)))


@cache
def network_namespace() -> tuple[str, ...]:
    """What goes in front of a command so that it has no network; nothing where users may not have that here."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    command = (unshare, "--user", "--net")
    tried = subprocess.run([*command, sys.executable, "-S", "-c", ""], check=False, capture_output=True)
    return () if tried.returncode else command


def described() -> str:
    """What keeps programs from the network on this machine."""
    return "a network namespace and an audit hook" if network_namespace() else "an audit hook alone"


def _python(limits: Limits) -> list[str]:
    # Isolated: no variables, no folder of the user's or the script's; no site packages; no bytecode is written.
    return [sys.executable, "-I", "-S", "-B", str(CHILD), str(limits.cpu_seconds), str(limits.memory_bytes)]


def _outcome(word: str, status: int) -> Outcome:
    verdict, _, detail = word.partition(" ")
    for known in get_args(Verdict):
        if verdict == known:
            return Outcome(known, detail)
    killed = -status in (signal.SIGXCPU, signal.SIGKILL)
    return Outcome("time", "CPU time") if killed else Outcome("failed", f"ended with status {status}")
