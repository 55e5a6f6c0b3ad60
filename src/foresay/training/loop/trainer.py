"""The training loop: batch, gradients, step, and what it tells whoever watches. What is trained is an `Objective`."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.optim import Optimizer

from foresay.foundation.errors import DivergedError
from foresay.training.config import LoopConfig
from foresay.training.loop.checkpoint import Checkpoints, log
from foresay.training.loop.distributed import ALONE, Ranks
from foresay.training.loop.fsdp import clip_gradients, is_sharded
from foresay.training.loop.objective import Objective
from foresay.training.loop.progress import Losses, Progress


def no_watch(progress: Progress) -> bool:
    """Watch nothing, stop never."""
    return False


@dataclass(frozen=True, slots=True)
class Trainer:
    """Everything a run needs; `run` is the whole story.

    `watch` is called after every step, in every process, and may decode, save or draw; when it returns true in the
    leading one the run ends early.
    """

    objective: Objective[Any]
    config: LoopConfig
    watch: Callable[[Progress], bool] = no_watch
    ranks: Ranks = ALONE
    checkpoints: Checkpoints | None = None
    """Where the state of the run is kept; None keeps none."""
    begin: Callable[[Progress], None] = lambda progress: None
    """Called before the first step, in every process, with where the run goes on."""

    def run(self) -> Progress:
        """Train up to step `config.steps`, from the newest checkpoint on."""
        optimizers = self.objective.optimizers()
        progress = self._resume(optimizers)
        started = time.perf_counter() - progress.seconds
        source = self.objective.batches()
        self.begin(progress)
        for step, batch in enumerate(islice(source, progress.step, self.config.steps), progress.step + 1):
            rate = self.config.learning_rate * self.rate(step - 1)
            began = time.perf_counter()
            losses, norm = self._step(batch, step, optimizers, rate)
            now = time.perf_counter()
            progress = Progress(step, losses, rate, norm, now - started, now - began)
            # State first: whatever the watcher leaves behind, the run that left it can go on.
            self._save(progress, optimizers)
            wanted = self.watch(progress)
            if self.ranks.agree(lambda: wanted):  # noqa: B023
                break
        return progress

    def _step(self, batch: Any, step: int, optimizers: Sequence[Optimizer], rate: float) -> tuple[Losses, float]:
        """One optimizer step; loss parts and gradient norm of the whole batch."""
        losses = self.objective.step(batch, step, self.ranks)
        trained = [p for p in self.objective.trained.parameters() if p.requires_grad]
        self.ranks.sum_gradients(trained)
        norm = clip_gradients(trained, self.config.clip)
        if not math.isfinite(norm):
            raise DivergedError(
                f"step {step} has a gradient norm of {norm}, and training cannot go on from there; lower learning_rate "
                f"(now {rate:.1e}), and begin anew with --restart"
            )
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        return self.ranks.sum_losses(losses, trained[0].device), norm

    def _resume(self, optimizers: Sequence[Optimizer]) -> Progress:
        """Where the newest checkpoint stands, or the beginning."""
        path = self.ranks.agree(self.checkpoints.newest) if self.checkpoints else None
        if self.checkpoints is None or path is None:
            return Progress()
        progress = self.checkpoints.load(path, self.objective.trained, optimizers)
        if self.ranks.leads:
            log.warning("going on after step %d of %d, from %s", progress.step, self.config.steps, path)
        return progress

    def _save(self, progress: Progress, optimizers: Sequence[Optimizer]) -> None:
        every = self.config.save_every
        trained = self.objective.trained
        if self.checkpoints and every and progress.step % every == 0 and (self.ranks.leads or is_sharded(trained)):
            self.checkpoints.save(progress, trained, optimizers, self.ranks.leads)

    def rate(self, step: int) -> float:
        """Factor on the peak learning rate at `step`, counted from 0."""
        warmup, lowest = self.config.warmup_steps, self.config.final_rate
        if step < warmup:
            return (step + 1) / warmup
        if self.config.schedule == "constant":
            return 1.0
        done = (step - warmup) / max(self.config.steps - warmup, 1)
        return lowest + (1 - lowest) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
