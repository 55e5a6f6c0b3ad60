"""What happens beside the steps of a run: decodes, the saved adapter, the log, news."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from foresay.foundation.errors import ArtefactError
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.artefact import folder as artefact
from foresay.training.loop.checkpoint import Checkpoints
from foresay.training.loop.distributed import Ranks
from foresay.training.loop.progress import Progress
from foresay.training.recipe import Recipe
from foresay.training.runs.trackers import NoTracker, Tracker, track
from foresay.training.runs.validation import HeldOut, Measured, shares_of


@dataclass(frozen=True, slots=True)
class TrainUpdate:
    """What a watcher of a run is told after a step."""

    progress: Progress
    measured: Measured | None = None
    """The last real decode of held-out prompts; None before the first."""
    best: Measured | None = None
    """The best decode so far, whose adapter is saved, where `keep` is best."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who is told what; see `train`."""

    watch: Callable[[TrainUpdate], None]
    stop: Callable[[Progress], bool]
    told: Callable[[str], None]


@dataclass(slots=True)
class AdapterRun:
    """What happens beside the steps: decodes, the saved adapter, news."""

    recipe: Recipe
    model: MultiTokenModel
    heldout: HeldOut
    data: list[dict[str, Any]]
    callbacks: Callbacks
    ranks: Ranks
    checkpoints: Checkpoints
    may_replace: bool
    """What lies in the folder is this run's own, or may be overwritten."""
    tracker: Tracker = field(default_factory=NoTracker)
    id: str | None = None
    """Known where something outlives a start: a log, or a best adapter."""
    decodes: list[Measured] = field(default_factory=list)
    best: Measured | None = None
    """Of the adapter that lies in the folder, where `keep` is best."""

    @property
    def measured(self) -> Measured | None:
        """The last decode."""
        return self.decodes[-1] if self.decodes else None

    def begin(self, progress: Progress) -> None:
        """Take up what an earlier start left.

        A checkpoint is older than the decode of its step: killed in between, nobody knows how that adapter decoded.
        """
        train = self.recipe.train
        if self.ranks.leads and (train.keep == "best" or train.tracker != "none"):
            self.id = self.checkpoints.claim()
            self._track(progress, self.id)
        if not progress.step:
            return
        if train.keep == "best":
            self.best = self.ranks.agree(self._kept)
        self._decode_if_due(progress)
        if self.ranks.leads:
            self.tracker.log(progress.step, self._figures(progress))

    def after_step(self, progress: Progress) -> bool:
        """Decode, save and tell, where it is time to; true ends the run."""
        config = self.recipe.train
        self._decode_if_due(progress)
        if config.keep == "last" and config.save_every and progress.step % config.save_every == 0:
            self.save(progress)
        if self.ranks.leads:
            self.tracker.log(progress.step, self._figures(progress))
        self.tell(progress)
        return self.callbacks.stop(progress)

    def finish(self, last: Progress) -> None:
        """Decode and save what was trained; the model is then what lies in the folder."""
        if self.heldout.prompts and not (self.measured and self.measured.step == last.step):
            self.decode(last)
            if self.ranks.leads and self.measured:
                self.tracker.log(last.step, self.measured.figures)
        self.tell(last)
        if self.best is None:
            self.save(last)
        elif self.best.step != last.step:
            self._take_back(self.best)

    def tell(self, progress: Progress) -> None:
        """Tell the watcher, once for all processes."""
        if self.ranks.leads:
            self.callbacks.watch(TrainUpdate(progress, self.measured, self.best))

    def decode(self, progress: Progress) -> None:
        """Measure on the held-out prompts; the adapter is saved if it is the best, where that is what is kept."""
        train = self.recipe.train
        measured = self.heldout.measure(self.model, progress.step, getattr(torch, train.save_dtype))
        found = self.ranks.agree(lambda: measured)
        self.decodes.append(found)
        if train.keep == "best" and (self.best is None or found.mean > self.best.mean):
            self.save(progress)
            self.best = found

    def save(self, progress: Progress) -> None:
        """Write the adapter as it is, once for all processes."""
        if not self.ranks.leads:
            return
        recipe = self.recipe
        self.model.provenance = provenance(
            mtp=asdict(recipe.mtp),
            losses=asdict(recipe.losses),
            train=asdict(recipe.train),
            data=self.data,
            run=self.id,
            steps=progress.step,
            seconds=round(progress.seconds, 1),
            measured=self.measured and asdict(self.measured) | {"mean": self.measured.mean},
        )
        self.model.save_pretrained(recipe.out, recipe.train.save_dtype, self.may_replace)
        self.may_replace = True

    def _decode_if_due(self, progress: Progress) -> None:
        every = self.recipe.train.eval_every
        if every and progress.step % every == 0 and self.heldout.prompts:
            self.decode(progress)

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
            artefact.load_weights(self.recipe.out, self.model.core)
            self.model.provenance = artefact.read_settings(self.recipe.out).provenance
        self.ranks.spread(self.model.core.added.parameters())
        self.model.core.acceptance = shares_of(best)

    def _track(self, progress: Progress, own: str) -> None:
        """Open the tracker, which goes on where the run does."""
        recipe = self.recipe
        settings = {"base": recipe.base, **asdict(recipe.mtp), **asdict(recipe.losses), **asdict(recipe.train)}
        self.tracker = track(recipe.train.tracker, recipe.out, own, progress, settings)
        if self.tracker.sentence:
            self.callbacks.told(self.tracker.sentence)

    def _figures(self, progress: Progress) -> dict[str, float]:
        """What a step is logged with: of its training, and of its decode where there was one."""
        losses = {f"loss/{name}": value for name, value in asdict(progress.losses).items() if name != "rows"}
        decoded = self.measured.figures if self.measured and self.measured.step == progress.step else {}
        return {
            **losses,
            **progress.figures,
            "rows_per_second": progress.rows_per_second,
            **decoded,
        }
