"""The training loop: batch, two passes, step, and what it tells whoever watches."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import nn
from torch.optim import Optimizer

from foresay.config import LossConfig, TrainConfig
from foresay.modelling.model import MaskModel
from foresay.training.batches import batches
from foresay.training.checkpoint import Checkpoints, log
from foresay.training.data import Example
from foresay.training.losses import Losses
from foresay.training.parallel import ALONE, Ranks
from foresay.training.progress import Progress
from foresay.training.two_pass import Batch, two_pass

Passes = Callable[[MaskModel, Batch, LossConfig, int], Losses]
"""Gradients and loss parts of a batch, as `two_pass` gives them."""

LOWEST_RATE = 0.01
"""Share of the peak learning rate at which the cosine ends."""


def no_watch(progress: Progress) -> bool:
    """Watch nothing, stop never."""
    return False


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything a run needs; `run` is the whole story.

    `watch` is called after every step, in every process, and may decode, save or draw; when it returns true in the
    leading one the run ends early.
    """

    model: MaskModel
    examples: Sequence[Example]
    config: TrainConfig
    losses: LossConfig = field(default_factory=LossConfig)
    watch: Callable[[Progress], bool] = no_watch
    ranks: Ranks = ALONE
    checkpoints: Checkpoints | None = None
    """Where the state of the run is kept; None keeps none."""
    passes: Passes | None = None
    """How a batch is gone through; None: in two passes."""

    def run(self) -> Progress:
        """Train up to step `config.steps`, from the newest checkpoint on; the base's weights are not touched."""
        optimizer = torch.optim.AdamW(self._trained(), weight_decay=self.config.weight_decay)
        progress = self._resume(optimizer)
        started = time.perf_counter() - progress.seconds
        source = batches(self.examples, self.config, self.model.base.device)
        for step, batch in enumerate(islice(source, progress.step, self.config.steps), progress.step + 1):
            rate = self.config.learning_rate * self.rate(step - 1)
            losses, norm = self._step(batch, step, optimizer, rate)
            progress = Progress(step, losses, rate, norm, time.perf_counter() - started)
            # State first: whatever the watcher leaves behind, the run that left it can go on.
            self._save(progress, optimizer)
            wanted = self.watch(progress)
            if self.ranks.agree(lambda: wanted):  # noqa: B023
                break
        return progress

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.model.adapter.parameters() if p.requires_grad]

    def _step(self, batch: Batch, step: int, optimizer: Optimizer, rate: float) -> tuple[Losses, float]:
        """One optimizer step; loss parts and gradient norm of the whole batch."""
        batch = self.ranks.share(replace(batch, masks=self.masks(step)))
        losses = (self.passes or two_pass)(self.model, batch, self.losses, self.config.chunk_anchors)
        self.ranks.sum_gradients(self._trained())
        norm = nn.utils.clip_grad_norm_(self._trained(), self.config.clip).item()
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        return self.ranks.sum_losses(losses, batch.ids.device), norm

    def _resume(self, optimizer: Optimizer) -> Progress:
        """Where the newest checkpoint stands, or the beginning."""
        path = self.ranks.agree(self.checkpoints.newest) if self.checkpoints else None
        if self.checkpoints is None or path is None:
            return Progress()
        progress = self.checkpoints.load(path, self.model.adapter, optimizer)
        if self.ranks.leads:
            log.warning("going on behind step %d of %d, from %s", progress.step, self.config.steps, path)
        return progress

    def _save(self, progress: Progress, optimizer: Optimizer) -> None:
        every = self.config.save_every
        if self.checkpoints and self.ranks.leads and every and progress.step % every == 0:
            self.checkpoints.save(progress, self.model.adapter, optimizer)

    def masks(self, step: int) -> int:
        """Masks in a block at `step`, counted from 1: 1, then more, all k when the curriculum is over."""
        most, grown = self.model.config.num_masks, self.config.curriculum_steps
        return min(1 + (step - 1) * most // grown, most) if grown else most

    def rate(self, step: int) -> float:
        """Factor on the peak learning rate at `step`, counted from 0."""
        warmup = self.config.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        if self.config.schedule == "constant":
            return 1.0
        done = (step - warmup) / max(self.config.steps - warmup, 1)
        return LOWEST_RATE + (1 - LOWEST_RATE) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
