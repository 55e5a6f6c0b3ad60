"""What happens beside the steps of a pretraining: measurements, the saved model, the log, news."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from foresay.data.example import Example
from foresay.data.prompts import Prompt
from foresay.foundation.files import replacing
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.artefact import folder as artefact
from foresay.models.families import family_of
from foresay.models.heads.model import HeadsModel
from foresay.training.loop.checkpoint import Checkpoints
from foresay.training.loop.distributed import Ranks
from foresay.training.loop.fsdp import gather, is_sharded
from foresay.training.loop.progress import Progress
from foresay.training.recipe import PretrainRecipe
from foresay.training.runs.bits_per_byte import bits_per_byte
from foresay.training.runs.trackers import NoTracker, Tracker, track
from foresay.training.runs.validation import HeldOut, heldout_prompts

DECODED, DECODED_TOKENS = 4, 64
"""Held-out examples of each domain that are decoded at the end, and most tokens of each."""


@dataclass(frozen=True, slots=True)
class PretrainUpdate:
    """What a watcher of a run is told after a step."""

    progress: Progress
    tokens_per_second: float
    """Trained so far."""
    bits_per_byte: dict[str, float]
    """By domain, of held-out examples, by head 1; empty before the first measurement."""

    @property
    def figures(self) -> dict[str, float]:
        """What a step is logged with, beside what was measured at it."""
        losses = self.progress.losses
        paid = {"loss/head_1": losses.base, "loss/total": losses.total}
        return {**paid, **self.progress.figures, "tokens_per_second": self.tokens_per_second}


@dataclass(frozen=True, slots=True)
class PretrainResult:
    """What a run leaves."""

    folder: Path
    parameters: int
    tokens: int
    """In the data; a run may go over them several times."""
    last: PretrainUpdate
    tokens_per_step: dict[str, float]
    """By domain, decoded for real with all heads; empty for one head."""
    dtype: str
    """Of products while training."""
    leads: bool = True


@dataclass(frozen=True, slots=True)
class PretrainCallbacks:
    """Who is told what; see `pretrain`."""

    watch: Callable[[PretrainUpdate], None]
    stop: Callable[[Progress], bool]
    told: Callable[[str], None]


@dataclass(slots=True)
class PretrainRun:
    """What happens beside the steps: measurements, news, the folder."""

    recipe: PretrainRecipe
    start: dict[str, Any]
    model: HeadsModel
    tokenizer: PreTrainedTokenizerBase
    heldout: Sequence[Example]
    data: list[dict[str, Any]]
    callbacks: PretrainCallbacks
    ranks: Ranks
    checkpoints: Checkpoints
    may_replace: bool
    """What lies in the folder is this run's own, or may be overwritten."""
    bits: dict[str, float] = field(default_factory=dict)
    measured_at: int = -1
    """Step that `bits` are of."""
    tracker: Tracker = field(default_factory=NoTracker)

    def begin(self, progress: Progress) -> None:
        """Take up the log where an earlier start left it."""
        recipe = self.recipe
        if self.ranks.leads and recipe.train.tracker != "none":
            settings = {"config": recipe.config, **asdict(recipe.heads), **asdict(recipe.train)}
            own = self.checkpoints.claim()
            self.tracker = track(recipe.train.tracker, recipe.out, own, progress, settings)
            if self.tracker.sentence:
                self.callbacks.told(self.tracker.sentence)
        if progress.step:
            self.follow(progress)

    def after_step(self, progress: Progress) -> bool:
        """Measure where it is time to, log and tell; true ends the run."""
        self.follow(progress)
        self.tell(progress)
        return self.callbacks.stop(progress)

    def follow(self, progress: Progress) -> None:
        """Measure where it is time to, and log."""
        every = self.recipe.train.eval_every
        if every and progress.step % every == 0:
            self.measure(progress)
        bits = self.bit_figures if self.measured_at == progress.step else {}
        self.tracker.log(progress.step, {**self.reading(progress).figures, **bits})

    def measure(self, progress: Progress) -> None:
        """Bits per byte as the model is now."""
        if self.takes_part:
            self.bits, self.measured_at = bits_per_byte(self.model.base, self.tokenizer, self.heldout), progress.step

    @property
    def takes_part(self) -> bool:
        """This process runs the model that is measured: the leading one, and all where each has a part of it."""
        return self.ranks.leads or is_sharded(self.model)

    @property
    def bit_figures(self) -> dict[str, float]:
        """The last measurement by name, for a tracker."""
        return {f"bits_per_byte/{domain}": value for domain, value in self.bits.items()}

    def reading(self, progress: Progress) -> PretrainUpdate:
        """What there is to tell of a step."""
        trained = progress.step * self.recipe.train.rows * self.recipe.train.length
        return PretrainUpdate(progress, trained / max(progress.seconds, 1e-9), self.bits)

    def tell(self, progress: Progress) -> None:
        """Tell the watcher, once for all processes."""
        if self.ranks.leads:
            self.callbacks.watch(self.reading(progress))

    def finish(self, last: Progress, tokens: int) -> PretrainResult:
        """Measure, decode and save what was trained."""
        self.model.requires_grad_(False)
        dtype = getattr(torch, self.recipe.train.save_dtype)
        for parameter in self.model.parameters():
            # What is measured is what the folder will hold.
            parameter.data.copy_(parameter.data.to(dtype))
        if self.measured_at != last.step or dtype != torch.float32:
            self.measure(last)
            self.tracker.log(last.step, self.bit_figures)
        self.tell(last)
        whole = MultiTokenModel(self.model, self.tokenizer, artefact.HERE)
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        rates = self._decode(whole) if self.model.config.drafts and self.takes_part else {}
        gather(self.model, self.ranks.leads)
        if self.ranks.leads:
            self._save(whole, last, rates)
        dtype = self.recipe.train.dtype
        return PretrainResult(self.recipe.out, parameters, tokens, self.reading(last), rates, dtype, self.ranks.leads)

    def _decode(self, whole: MultiTokenModel) -> dict[str, float]:
        """Tokens per step by domain, on the first held-out examples of each."""
        taken: dict[str, list[Prompt]] = {}
        for prompt in heldout_prompts(self.heldout):
            taken.setdefault(prompt.domain, []).append(prompt)
        prompts = tuple(prompt for some in taken.values() for prompt in some[:DECODED])
        return HeldOut(prompts, DECODED_TOKENS, len(prompts)).measure(whole).tokens_per_step

    def _save(self, whole: MultiTokenModel, last: Progress, rates: dict[str, float]) -> None:
        """Write the ordinary checkpoint, its card, and the other heads beside it."""
        recipe, dtype = self.recipe, getattr(torch, self.recipe.train.save_dtype)
        made = provenance(
            config=self.start,
            heads=asdict(recipe.heads),
            train=asdict(recipe.train),
            data=self.data,
            steps=last.step,
            seconds=round(last.seconds, 1),
            bits_per_byte={name: round(value, 4) for name, value in self.bits.items()},
            tokens_per_step={name: round(value, 3) for name, value in rates.items()},
        )
        settings = artefact.Settings(
            mtp=recipe.heads,
            base=artefact.HERE,
            fingerprints=whole.fingerprints(),
            acceptance=self.model.acceptance,
            provenance=made,
            family=family_of(recipe.heads),
        )
        with replacing(recipe.out, self.may_replace) as fresh:
            artefact.write_with_base(fresh, self.model, self.tokenizer, settings, dtype)
