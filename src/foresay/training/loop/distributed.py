"""Several processes as one trainer: the same global batch, losses and steps at any number of them.

Every process draws the same global batch, counts its denominators, and runs its own sequences of it. A step has many
backward passes, so gradients of what is whole in every process are summed once after them all; `fsdp` sums those
of the layers that it shards.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from foresay.foundation.errors import ConfigError
from foresay.training.config import Parallel
from foresay.training.loop.progress import Losses

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """It writes and speaks for all."""
        return self.rank == 0

    def agree(self, decide: Callable[[], T]) -> T:
        """What the leading process decides, in every process."""
        said: list[Any] = [decide() if self.leads else None]
        if self.world > 1:
            dist.broadcast_object_list(said)
        return said[0]  # type: ignore[no-any-return]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes, but for shards: their layers have done so."""
        if self.world == 1:
            return
        working = []
        for parameter in parameters:
            if isinstance(parameter, DTensor):
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            working.append(dist.all_reduce(parameter.grad, async_op=True))
        for work in working:
            work.wait()

    def spread(self, parameters: Iterable[nn.Parameter]) -> None:
        """The leading process's values, in every process."""
        for parameter in parameters if self.world > 1 else ():
            dist.broadcast(parameter.data, 0)

    def sum_losses(self, losses: Losses, device: torch.device) -> Losses:
        """Add up the loss parts of all processes."""
        if self.world == 1:
            return losses
        parts = torch.tensor(astuple(losses), dtype=torch.float64, device=device)
        dist.all_reduce(parts)
        return Losses(*parts.tolist())


ALONE = Ranks()


@contextmanager
def joined(parallel: Parallel) -> Iterator[Ranks]:
    """The processes that `torchrun` started, as long as the block runs; or those that are joined already, as under Ray.

    Raises ConfigError.
    """
    started = "WORLD_SIZE" in os.environ
    if parallel == "none":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError("several processes were started and parallel is none; give --parallel ddp or fsdp")
        yield ALONE
        return
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    if not started:
        raise ConfigError(
            f"parallel is {parallel} and one process was started; start with `torchrun --nproc-per-node N -m foresay "
            "...`, or give --parallel none"
        )
    if torch.cuda.is_available():
        torch.cuda.set_device(card_of(int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()))
    # The others wait while the leading process measures, hashes and writes.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=timedelta(hours=2))
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
        # Nobody leaves while the leading process still writes: if one ends badly, torchrun ends them all.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def card_of(rank: int, cards: int) -> int:
    """The card of a machine's process `rank`, counted from 0. Raises ConfigError where there are fewer."""
    if rank >= cards:
        raise ConfigError(
            f"{rank + 1} or more processes were started on a machine with {cards} CUDA cards, and each takes one; give "
            f"--nproc-per-node {cards}"
        )
    return rank
