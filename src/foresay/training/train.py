"""The training loop: batch, two passes, step, and what it tells whoever watches."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch.optim.lr_scheduler import LambdaLR

from foresay.config import LossConfig, TrainConfig
from foresay.modelling.model import MaskModel
from foresay.training.batches import batches
from foresay.training.data import Example
from foresay.training.losses import Losses
from foresay.training.two_pass import two_pass

LOWEST_RATE = 0.01
"""Share of the peak learning rate at which the cosine ends."""


@dataclass(frozen=True, slots=True)
class Progress:
    """State of the run after a step."""

    step: int
    losses: Losses
    learning_rate: float
    gradient_norm: float
    seconds: float
    """Since the loop began, watchers included."""


def no_watch(progress: Progress) -> bool:
    """Watch nothing, stop never."""
    return False


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything a run needs; `run` is the whole story.

    `watch` is called after every step and may decode, save or draw; when it returns true the run ends early.
    """

    model: MaskModel
    examples: Sequence[Example]
    config: TrainConfig
    losses: LossConfig = field(default_factory=LossConfig)
    watch: Callable[[Progress], bool] = no_watch

    def run(self) -> Progress:
        """Train for `config.steps` steps; the base's weights are not touched."""
        trained = [p for p in self.model.adapter.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.config.learning_rate, weight_decay=self.config.weight_decay)
        schedule = LambdaLR(optimizer, self.rate)
        source = batches(self.examples, self.config, self.model.base.device)
        started = time.perf_counter()
        for step in range(1, self.config.steps + 1):
            batch = replace(next(source), masks=self.masks(step))
            losses = two_pass(self.model, batch, self.losses, self.config.chunk_anchors)
            norm = torch.nn.utils.clip_grad_norm_(trained, self.config.clip).item()
            rate = float(schedule.get_last_lr()[0])
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            progress = Progress(step, losses, rate, norm, time.perf_counter() - started)
            if self.watch(progress):
                break
        return progress

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
