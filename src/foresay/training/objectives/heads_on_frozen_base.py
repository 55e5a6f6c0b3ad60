"""Heads on a frozen base, as something to train: what comes later, said by the base itself (Medusa-1's setting)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from foresay.data.example import Example
from foresay.models.heads.model import HeadsModel
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.loop.distributed import Ranks
from foresay.training.loop.objective import Objective
from foresay.training.loop.optimizers import optimizers
from foresay.training.loop.progress import Losses
from foresay.training.objectives.batches import Batch, batches, share
from foresay.training.objectives.heads import go_backward
from foresay.training.objectives.losses import backward_in_chunks, head_loss, teach


@dataclass(frozen=True, slots=True)
class RetrofitObjective(Objective[Batch]):
    """Heads 2..n on rows whose later token carries loss: its label, or what the base says there, or both.

    Heads weigh as `position_weights` say (head 2 first).
    """

    model: HeadsModel
    examples: Sequence[Example]
    config: TrainConfig
    losses: LossConfig = field(default_factory=LossConfig)

    @property
    def trained(self) -> nn.Module:
        """Heads 2..n."""
        return self.model.heads

    def optimizers(self) -> tuple[Optimizer, ...]:
        """AdamW, or Muon beside it."""
        config, vocabulary = self.config, self.model.base.vocabulary
        return optimizers(self.model.heads.parameters(), config.optimizer, config.weight_decay, vocabulary)

    def batches(self) -> Iterator[Batch]:
        """Sequences of like length together; anchors are not read."""
        return batches(self.examples, self.config, self.model.base.device)

    def step(self, batch: Batch, number: int, ranks: Ranks) -> Losses:
        """See `Objective.step`: `base` is the weighted mean over heads, `total` their sum."""
        batch, model, losses = share(batch, ranks), self.model, Losses()
        ids, carries = batch.ids[batch.own], batch.carries[batch.own]
        points, call = model.points(ids)
        with torch.no_grad():
            own = model.tail(next(point.leaf for point in points if point.head == 1))
            argmax = teach(model.base.unembed, model.base.vocabulary, own, ids, carries).argmax

        def pay(head: int, states: Tensor) -> None:
            if head == 1:
                return
            # Row t of this head speaks of the token that the base speaks of at row t + head - 1.
            count = max(int(batch.carries[:, head - 1 :].sum()), 1)
            sequence, row = carries[:, head - 1 :].nonzero().unbind(1)
            later = row + head - 1
            targets = argmax[sequence, later] if self.losses.target == "base_argmax" else ids[sequence, later + 1]

            def loss(some: slice, states: Tensor) -> Tensor:
                teacher = model.base.unembed(own[sequence[some], later[some]]) if self.losses.distils else None
                rows = head_loss(model.logits(head, states), targets[some], teacher, self.losses)
                paid: Tensor = self._weight(head) * rows.sum() / count
                losses.add(Losses(base=paid.item() / model.config.drafts, total=paid.item(), rows=len(rows)))
                return paid

            backward_in_chunks(states[sequence, row], model.base.vocabulary, loss)

        go_backward(model, points, call, pay)
        return losses

    def _weight(self, head: int) -> float:
        given = self.losses.position_weights or (1.0,)
        return given[min(head - 2, len(given) - 1)]
