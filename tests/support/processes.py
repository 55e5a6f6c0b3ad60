"""Processes of their own for tests, from a server that has imported everything once: they begin at once."""

import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from foresay.cli.main import entry
from foresay.training.loop.checkpoint import run_folder

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["foresay.cli.main", "tests.support.processes", "tests.support.toys"])


def start(work: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Run `work`, a function of a module, in another process."""
    process = CONTEXT.Process(target=_on_one_thread, args=(work, *arguments))
    process.start()
    return process


def start_program(folder: Path, *arguments: Any) -> ForkServerProcess:
    """Run `foresay` with these arguments; what it prints goes to the files, or pipes, `out` and `err` of `folder`."""
    return start(_as_program, folder, [str(argument) for argument in arguments])


def start_together(count: int, work: Callable[..., None], *arguments: Any) -> list[ForkServerProcess]:
    """Run `work` in `count` processes that find each other as under torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(_as_rank, rank, count, port, work, *arguments) for rank in range(count)]


def killed_until_done(out: Path, log: Path, chance: random.Random, work: Callable[..., None], *arguments: Any) -> int:
    """Kill -9 `work`, which trains into `out` and writes a line to `log` for each step, at random moments, and start it
    again until one try comes to the end; how many were killed.

    A moment is some steps later than the last one, then anywhere in the step or what follows it. The artefact there and
    its run folder gone, the run was over: it is not started again, however its process ended.
    """
    kills = 0
    while True:
        process, wanted = start(work, *arguments), lines(log) + chance.randint(1, 9)
        while lines(log) < wanted and process.is_alive():
            time.sleep(0.001)
        time.sleep(chance.uniform(0.0, 0.08))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0 or (out.exists() and not run_folder(out).exists()):
            return kills
        kills += 1


def killed_often(folder: Path, begin: Callable[[Path, random.Random], int]) -> list[Path]:
    """Runs that `begin` (folder, chance) had killed, until there were as many kills as FORESAY_KILLS says (3): their
    folders.
    """
    chance, kills, folders = random.Random(1), 0, list[Path]()
    while kills < int(os.environ.get("FORESAY_KILLS", "3")):
        folders.append(folder / str(kills))
        folders[-1].mkdir()
        kills += begin(folders[-1], chance)
    print(f"{kills} killed")
    return folders


def lines(log: Path) -> int:
    """Lines of a file that may not be there yet."""
    return log.read_text().count("\n") if log.exists() else 0


def _on_one_thread(work: Callable[..., None], *arguments: Any) -> None:
    # As in the tests' own process (conftest.py): sums over several threads differ in their last bits.
    torch.set_num_threads(1)
    torch.cpu.get_capabilities = dict
    work(*arguments)


def _as_program(folder: Path, arguments: list[str]) -> None:
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv[1:] = arguments
    entry()


def _as_rank(rank: int, count: int, port: int, work: Callable[..., None], *arguments: Any) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    work(*arguments)
