"""What a run that trains an adapter does of its own: decodes of held-out prompts, the saved adapter."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from foresay.foundation.errors import ArtefactError
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.artefact import folder as artefact
from foresay.training.loop.distributed import Ranks
from foresay.training.loop.progress import Progress
from foresay.training.recipe import Recipe
from foresay.training.runs.validation import HeldOut, Measured, shares_of


@dataclass(frozen=True, slots=True)
class TrainUpdate:
    """What a watcher of a run is told after a step."""

    progress: Progress
    measured: Measured | None = None
    """The last real decode of held-out prompts; None before the first."""
    best: Measured | None = None
    """The best decode so far, whose adapter is saved, where `keep` is best."""


@dataclass(slots=True)
class AdapterHooks:
    """`RunHooks` of an adapter."""

    recipe: Recipe
    model: MultiTokenModel
    heldout: HeldOut
    data: list[dict[str, Any]]
    """What was read of each source, ready for JSON."""
    ranks: Ranks
    may_replace: bool
    """What lies in the folder is this run's own, or may be overwritten."""
    id: str | None = None
    """Known where something outlives a start: a log, or a best adapter."""
    decodes: list[Measured] = field(default_factory=list)
    best: Measured | None = None
    """Of the adapter that lies in the folder, where `keep` is best."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a tracker is told of the run."""
        recipe = self.recipe
        return {"base": recipe.base, **asdict(recipe.mtp), **asdict(recipe.losses), **asdict(recipe.train)}

    @property
    def needs_id(self) -> bool:
        """The best adapter bears the id of its run."""
        return self.recipe.train.keep == "best"

    @property
    def measured(self) -> Measured | None:
        """The last decode."""
        return self.decodes[-1] if self.decodes else None

    def begin(self, own: str | None, progress: Progress) -> None:
        """Know the best adapter that an earlier start left.

        Killed between a decode and its save, nobody knows how the adapter in the folder decoded.
        """
        self.id = own
        if progress.step and self.recipe.train.keep == "best":
            self.best = self.ranks.agree(self._kept)

    def measure(self, progress: Progress) -> None:
        """Decode the held-out prompts; the adapter is saved if it is the best, where that is what is kept."""
        if not self.heldout.prompts:
            return
        train = self.recipe.train
        measured = self.heldout.measure(self.model, progress.step, getattr(torch, train.save_dtype))
        found = self.ranks.agree(lambda: measured)
        self.decodes.append(found)
        if train.keep == "best" and (self.best is None or found.mean > self.best.mean):
            self._write(progress)
            self.best = found

    def save(self, progress: Progress) -> None:
        """Write the adapter as it is every `save_every` steps, where the last one is kept."""
        config = self.recipe.train
        if config.keep == "last" and config.save_every and progress.step % config.save_every == 0:
            self._write(progress)

    def figures(self, progress: Progress) -> Mapping[str, float]:
        """Of the training of a step, and of its decode where there was one."""
        losses = {f"loss/{name}": value for name, value in asdict(progress.losses).items() if name != "rows"}
        decoded = self.measured.figures if self.measured and self.measured.step == progress.step else {}
        return {**losses, **progress.figures, "rows_per_second": progress.rows_per_second, **decoded}

    def update(self, progress: Progress) -> TrainUpdate:
        """What a watcher is told of a step."""
        return TrainUpdate(progress, self.measured, self.best)

    def measure_last(self, last: Progress) -> Mapping[str, float]:
        """Decode at the last step, if that was not done at it."""
        if not self.heldout.prompts or (self.measured and self.measured.step == last.step):
            return {}
        self.measure(last)
        return self.measured.figures if self.measured else {}

    def finish(self, last: Progress) -> None:
        """Save what was trained; the model is then what lies in the folder."""
        if self.best is None:
            self._write(last)
        elif self.best.step != last.step:
            self._take_back(self.best)

    def _write(self, progress: Progress) -> None:
        """Write the adapter as it is, once for all processes."""
        if not self.ranks.leads:
            return
        recipe = self.recipe
        self.model.provenance = provenance(
            mtp=asdict(recipe.mtp),
            losses=asdict(recipe.losses),
            train=asdict(recipe.train),
            data=self.data,
            init_from=recipe.init_from,
            run=self.id,
            steps=progress.step,
            seconds=round(progress.seconds, 1),
            measured=self.measured and asdict(self.measured) | {"mean": self.measured.mean},
        )
        self.model.save_pretrained(recipe.out, recipe.train.save_dtype, self.may_replace)
        self.may_replace = True

    def _kept(self) -> Measured | None:
        """What an earlier start of this run measured of the adapter in the folder."""
        try:
            said = artefact.read_settings(self.recipe.out).provenance["settings"]
            measured = {name: value for name, value in said["measured"].items() if name != "mean"}
            found = Measured.read(measured)
        except (ArtefactError, KeyError, TypeError, AttributeError):
            return None
        own = said["run"] == self.id and said["steps"] == found.step
        return found if own and found.fingerprint == self.heldout.fingerprint else None

    def _take_back(self, best: Measured) -> None:
        """The best adapter's weights from the folder, in every process."""
        if self.ranks.leads:
            self.model.load_weights(self.recipe.out)
            self.model.provenance = artefact.read_settings(self.recipe.out).provenance
        self.ranks.spread(self.model.added.parameters())
        self.model.acceptance = shares_of(best)
