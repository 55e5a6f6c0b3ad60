"""What a run trains, and on what: all that the training loop knows of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, TypeVar

from torch import nn
from torch.optim import Optimizer

from foresay.training.loop.distributed import Ranks
from foresay.training.loop.progress import Losses

B = TypeVar("B")
"""A batch: what one step takes."""


class Objective(ABC, Generic[B]):
    """A module to train, batches for it, and the gradients of one of them."""

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """Its parameters that require gradients are trained; its whole state is kept in checkpoints."""

    @abstractmethod
    def optimizers(self) -> tuple[Optimizer, ...]:
        """Fresh optimizers, each of some of these parameters; the loop sets their learning rate."""

    @abstractmethod
    def batches(self) -> Iterator[B]:
        """Endless batches, the same in every process: a pure function of the seed."""

    @abstractmethod
    def step(self, batch: B, number: int, ranks: Ranks) -> Losses:
        """Add this process's part of the gradients of step `number`, counted from 1, and return its loss parts.

        Denominators are those of the whole batch, so that gradients and parts of all processes add up to the step's.
        """
