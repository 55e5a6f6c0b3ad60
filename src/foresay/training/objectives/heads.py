"""All heads of a model as something to train, one head's logits at a time (paper B, section 2 and figure 2).

The trunk runs forward once. Its states are cut off from its graph; each head in turn runs forward, pays, and runs
backward onto them; then the trunk runs backward once with what has gathered there. Heads that depend on one another are
cut likewise, and go backward from the one farthest from the trunk.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from foresay.models.heads.layers import Passed
from foresay.models.heads.model import HeadsModel, Point
from foresay.training.config import PretrainConfig
from foresay.training.loop.distributed import Ranks
from foresay.training.loop.objective import Objective
from foresay.training.loop.optimizers import optimizers
from foresay.training.loop.progress import Losses
from foresay.training.objectives.losses import backward_in_chunks, cross_entropy
from foresay.training.objectives.token_rows import read_rows, row_batches

Pay = Callable[[int, Tensor], None]
"""(head, its states (B, T, D) after the tail): add the gradient of its loss to whatever they were made from."""


def head_by_head(model: HeadsModel, ids: Tensor, pay: Pay) -> None:
    """Add the gradients of every head's loss on the sequences `ids` (B, T) int64, in the paper's order."""
    go_backward(model, *model.points(ids), pay)


def go_backward(model: HeadsModel, points: Sequence[Point], call: Passed, pay: Pay) -> None:
    """The backward half, from what `HeadsModel.points` gave; what is frozen gets no gradient."""
    for point in reversed(points):
        if point.head:
            pay(point.head, model.tail(point.leaf))
        if point is points[0]:
            for head, made in model.branches(point.leaf, call):
                leaf = made.detach().requires_grad_()
                pay(head, model.tail(leaf))
                made.backward(leaf.grad)  # type: ignore[no-untyped-call]
        if point.made.requires_grad and point.leaf.grad is not None:
            point.made.backward(point.leaf.grad)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class HeadsObjective(Objective[Tensor]):
    """Pretraining: every token of every row that carries loss, by every head, all heads alike (paper B, section 2)."""

    model: HeadsModel
    rows: Tensor
    """(N, length) int32: see `token_rows`."""
    config: PretrainConfig

    @property
    def trained(self) -> nn.Module:
        """Trunk and heads."""
        return self.model

    def optimizers(self) -> tuple[Optimizer, ...]:
        """AdamW with paper B's betas 0.9 and 0.95 (table S13), or Muon beside it."""
        config, vocabulary = self.config, self.model.base.vocabulary
        return optimizers(self.model.parameters(), config.optimizer, config.weight_decay, vocabulary, beta=0.95)

    def batches(self) -> Iterator[Tensor]:
        """See `row_batches`."""
        config = self.config
        return row_batches(self.rows, config.rows, config.seed, self.model.base.device)

    def step(self, batch: Tensor, number: int, ranks: Ranks) -> Losses:
        """See `Objective.step`: `base` is what head 1 pays, `total` the sum over heads."""
        losses, counts = Losses(), self._targets(batch)
        own = batch[ranks.rank :: ranks.world]
        for part in torch.split(own, self.config.chunk_rows or len(batch)) if len(own) else ():
            ids, carries = read_rows(part)

            def pay(head: int, states: Tensor, ids: Tensor = ids, carries: Tensor = carries) -> None:
                rows, targets = states[:, :-head].flatten(0, 1), ids[:, head:].flatten()
                if self.config.answers_only:
                    chosen = carries[:, head:].flatten()
                    rows, targets = rows[chosen], targets[chosen]

                def loss(some: slice, states: Tensor) -> Tensor:
                    logits = self.model.logits(head, states)
                    paid = cross_entropy(logits, targets[some]).sum() / counts[head]
                    losses.add(Losses(base=paid.item() if head == 1 else 0.0, total=paid.item()))
                    return paid

                backward_in_chunks(rows, self.model.base.vocabulary, loss)

            with self.autocast():
                head_by_head(self.model, ids, pay)
        return losses

    def _targets(self, batch: Tensor) -> dict[int, int]:
        """By head: the targets of a whole batch that carry loss, at least 1."""
        (count, length), heads = batch.shape, range(1, self.model.config.heads + 1)
        if not self.config.answers_only:
            return {head: count * (length - head) for head in heads}
        return {head: max(int((batch[:, head:] >= 0).sum()), 1) for head in heads}

    def autocast(self) -> AbstractContextManager[object]:
        """Products in bfloat16 where asked for; weights, sums and losses stay float32."""
        device = self.model.base.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.config.dtype == "bfloat16", cache_enabled=False)
