"""What a run that trains a whole model does of its own: bits per byte of held-out examples, the saved model."""

from collections.abc import Mapping, Sequence
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
from foresay.training.loop.distributed import Ranks
from foresay.training.loop.fsdp import gather, is_sharded
from foresay.training.loop.progress import Progress
from foresay.training.recipe import PretrainRecipe
from foresay.training.runs.bits_per_byte import bits_per_byte
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


@dataclass(slots=True)
class PretrainHooks:
    """`RunHooks` of a whole model."""

    recipe: PretrainRecipe
    start: dict[str, Any]
    """What the model was before the first step, ready for JSON."""
    model: HeadsModel
    tokenizer: PreTrainedTokenizerBase
    heldout: Sequence[Example]
    data: list[dict[str, Any]]
    """What was read of each source, ready for JSON."""
    ranks: Ranks
    may_replace: bool
    """What lies in the folder is this run's own, or may be overwritten."""
    bits: dict[str, float] = field(default_factory=dict)
    """Bits per byte by domain, as last measured."""
    measured_at: int = -1
    """Step that `bits` are of."""
    tokens_per_step: dict[str, float] = field(default_factory=dict)
    """By domain, decoded at the end."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a tracker is told of the run."""
        recipe = self.recipe
        return {"config": recipe.config, **asdict(recipe.heads), **asdict(recipe.train)}

    @property
    def needs_id(self) -> bool:
        """Only a log bears the id of a pretraining."""
        return False

    @property
    def takes_part(self) -> bool:
        """This process runs the model that is measured: the leading one, and all where each has a part of it."""
        return self.ranks.leads or is_sharded(self.model)

    def begin(self, own: str | None, progress: Progress) -> None:
        """Nothing is left but checkpoint and log."""

    def measure(self, progress: Progress) -> None:
        """Bits per byte as the model is now."""
        if self.takes_part:
            self.bits, self.measured_at = bits_per_byte(self.model.base, self.tokenizer, self.heldout), progress.step

    def save(self, progress: Progress) -> None:
        """The model is written at the end only; on the way there are checkpoints."""

    def figures(self, progress: Progress) -> Mapping[str, float]:
        """Of the training of a step, and of what was measured at it."""
        bits = self._bit_figures if self.measured_at == progress.step else {}
        return {**self.update(progress).figures, **bits}

    def update(self, progress: Progress) -> PretrainUpdate:
        """What a watcher is told of a step."""
        trained = progress.step * self.recipe.train.rows * self.recipe.train.length
        return PretrainUpdate(progress, trained / max(progress.seconds, 1e-9), self.bits)

    def measure_last(self, last: Progress) -> Mapping[str, float]:
        """Measure the model as the folder will hold it: its weights are rounded to the dtype that it is saved in."""
        self.model.requires_grad_(False)
        dtype = getattr(torch, self.recipe.train.save_dtype)
        for parameter in self.model.parameters():
            parameter.data.copy_(parameter.data.to(dtype))
        if self.measured_at == last.step and dtype == torch.float32:
            return {}
        self.measure(last)
        return self._bit_figures

    def finish(self, last: Progress) -> None:
        """Decode with all heads, and save."""
        whole = MultiTokenModel(self.model, self.tokenizer, artefact.HERE)
        if self.model.config.drafts and self.takes_part:
            self.tokens_per_step = self._decode(whole)
        gather(self.model, self.ranks.leads)
        if self.ranks.leads:
            self._save(whole, last)

    @property
    def _bit_figures(self) -> dict[str, float]:
        """The last measurement by name, for a tracker."""
        return {f"bits_per_byte/{domain}": value for domain, value in self.bits.items()}

    def _decode(self, whole: MultiTokenModel) -> dict[str, float]:
        """Tokens per step by domain, on the first held-out examples of each."""
        taken: dict[str, list[Prompt]] = {}
        for prompt in heldout_prompts(self.heldout):
            taken.setdefault(prompt.domain, []).append(prompt)
        prompts = tuple(prompt for some in taken.values() for prompt in some[:DECODED])
        return HeldOut(prompts, DECODED_TOKENS, len(prompts)).measure(whole).tokens_per_step

    def _save(self, whole: MultiTokenModel, last: Progress) -> None:
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
            tokens_per_step={name: round(value, 3) for name, value in self.tokens_per_step.items()},
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
