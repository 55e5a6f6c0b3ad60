"""The adapter of the family `masks` as something to train."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import nn
from torch.optim import Optimizer

from foresay.data.example import Example
from foresay.models.masks.model import MaskModel
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.loop.distributed import Ranks
from foresay.training.loop.objective import Objective
from foresay.training.loop.optimizers import optimizers
from foresay.training.loop.progress import Losses
from foresay.training.objectives.batches import Batch, batches, share
from foresay.training.objectives.two_pass import two_pass

Passes = Callable[[MaskModel, Batch, LossConfig, int], Losses]
"""Gradients and loss parts of a batch, as `two_pass` gives them."""


@dataclass(frozen=True, slots=True)
class MaskObjective(Objective[Batch]):
    """Two passes, or others, over each batch; the base's weights are not touched."""

    model: MaskModel
    examples: Sequence[Example]
    config: TrainConfig
    losses: LossConfig = field(default_factory=LossConfig)
    passes: Passes | None = None
    """How a batch is gone through; None: in two passes."""

    @property
    def trained(self) -> nn.Module:
        """The adapter."""
        return self.model.adapter

    def optimizers(self) -> tuple[Optimizer, ...]:
        """AdamW, or Muon beside it."""
        trained = (p for p in self.trained.parameters() if p.requires_grad)
        return optimizers(trained, self.config.optimizer, self.config.weight_decay, self.model.base.vocabulary)

    def batches(self) -> Iterator[Batch]:
        """Sequences of like length together, with anchors drawn for each."""
        return batches(self.examples, self.config, self.model.base.device)

    def step(self, batch: Batch, number: int, ranks: Ranks) -> Losses:
        """See `Objective.step`."""
        batch = share(replace(batch, masks=self.masks(number)), ranks)
        return (self.passes or two_pass)(self.model, batch, self.losses, self.config.chunk_anchors)

    def masks(self, step: int) -> int:
        """Masks in a block at `step`, counted from 1: 1, then more, all k when the curriculum is over."""
        most, grown = self.model.config.num_masks, self.config.curriculum_steps
        return min(1 + (step - 1) * most // grown, most) if grown else most
