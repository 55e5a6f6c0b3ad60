"""Processes of their own for tests, from a server that has imported everything once: they begin at once."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any

import torch

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["foresay.adapt", "toys"])


def start(work: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Run `work`, a function of a module, in another process."""
    process = CONTEXT.Process(target=_on_one_thread, args=(work, *arguments))
    process.start()
    return process


def start_together(count: int, work: Callable[..., None], *arguments: Any) -> list[ForkServerProcess]:
    """Run `work` in `count` processes that find each other as under torchrun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(_as_rank, rank, count, port, work, *arguments) for rank in range(count)]


def _on_one_thread(work: Callable[..., None], *arguments: Any) -> None:
    # As in the tests' own process: sums over several threads differ in their last bits.
    torch.set_num_threads(1)
    work(*arguments)


def _as_rank(rank: int, count: int, port: int, work: Callable[..., None], *arguments: Any) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    work(*arguments)
