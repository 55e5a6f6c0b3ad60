"""A run, of an adapter or of a whole model: the training loop, and what happens beside its steps.

What the two kinds do otherwise is told by their `RunHooks`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from foresay.training.loop.checkpoint import Checkpoints, run_folder
from foresay.training.loop.distributed import Ranks
from foresay.training.loop.objective import Objective
from foresay.training.loop.progress import Progress
from foresay.training.loop.trainer import Trainer
from foresay.training.recipe import PretrainRecipe, Recipe
from foresay.training.runs.trackers import NoTracker, Tracker, closing, track

U = TypeVar("U")
U_co = TypeVar("U_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Callbacks(Generic[U]):
    """Who is told what; see `train` and `pretrain`."""

    watch: Callable[[U], None]
    stop: Callable[[Progress], bool]
    told: Callable[[str], None]

    def say(self, sentences: Iterable[str], ranks: Ranks) -> None:
        """Tell people, once for all processes."""
        for sentence in sentences if ranks.leads else ():
            self.told(sentence)


class RunHooks(Protocol[U_co]):
    """What a kind of run does of its own. Every process calls every one of these, `save` and `begin` included."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a tracker is told of the run, ready for JSON."""

    @property
    def needs_id(self) -> bool:
        """Something that outlives a start bears the run's id, beside a log."""

    def begin(self, own: str | None, progress: Progress) -> None:
        """Take up what an earlier start left; `own` is the run's id, where it is needed and this process leads."""

    def measure(self, progress: Progress) -> None:
        """Measure on what is held out, and keep what was found."""

    def save(self, progress: Progress) -> None:
        """Write what is trained as it is now, if it is kept on the way."""

    def figures(self, progress: Progress) -> Mapping[str, float]:
        """What a step is logged with, what was measured at it included."""

    def update(self, progress: Progress) -> U_co:
        """What a watcher is told of a step."""

    def measure_last(self, last: Progress) -> Mapping[str, float]:
        """Measure what the folder will hold; figures to log, none where they were logged with the step."""

    def finish(self, last: Progress) -> None:
        """Write what was trained."""


@dataclass(slots=True)
class Run(Generic[U]):
    """One start of a run: measures, saves, logs and tells beside the steps."""

    recipe: Recipe | PretrainRecipe
    hooks: RunHooks[U]
    callbacks: Callbacks[U]
    ranks: Ranks
    checkpoints: Checkpoints
    tracker: Tracker = field(default_factory=NoTracker)

    @classmethod
    def of(
        cls,
        recipe: Recipe | PretrainRecipe,
        hooks: RunHooks[U],
        identity: dict[str, Any],
        callbacks: Callbacks[U],
        ranks: Ranks,
    ) -> "Run[U]":
        """The run of a recipe, which goes on from checkpoints of a run with the same `identity` only."""
        kept = Checkpoints(run_folder(recipe.out), identity, recipe.train.keep_checkpoints)
        return cls(recipe, hooks, callbacks, ranks, kept)

    def train(self, objective: Objective[Any]) -> Progress:
        """From the newest checkpoint, or the beginning, to what lies in the folder; the state of the run then goes."""
        if self.recipe.restart and self.ranks.leads:
            self.checkpoints.remove()
        trainer = Trainer(objective, self.recipe.train, self.after_step, self.ranks, self.checkpoints, self.begin)
        with closing(lambda: self.tracker):
            last = trainer.run()
            self.finish(last)
        if self.ranks.leads:
            self.checkpoints.remove()
        return last

    def begin(self, progress: Progress) -> None:
        """Open the log, and take up what an earlier start left.

        A checkpoint is older than what was measured at its step, which is measured again.
        """
        own, tracker = None, self.recipe.train.tracker
        if self.ranks.leads and (self.hooks.needs_id or tracker != "none"):
            own = self.checkpoints.claim()
            self.tracker = track(tracker, self.recipe.out, own, progress, self.hooks.settings)
            self.callbacks.say(filter(None, [self.tracker.sentence]), self.ranks)
        self.hooks.begin(own, progress)
        if progress.step:
            self._measure_if_due(progress)
            self.log(progress, self.hooks.figures(progress))

    def after_step(self, progress: Progress) -> bool:
        """Measure, save, log and tell, where it is time to; true ends the run."""
        self._measure_if_due(progress)
        self.hooks.save(progress)
        self.log(progress, self.hooks.figures(progress))
        self.tell(progress)
        return self.callbacks.stop(progress)

    def finish(self, last: Progress) -> None:
        """Measure and save what was trained."""
        if found := self.hooks.measure_last(last):
            self.log(last, found)
        self.tell(last)
        self.hooks.finish(last)

    def log(self, progress: Progress, figures: Mapping[str, float]) -> None:
        """Log a step, once for all processes: the others have no tracker."""
        self.tracker.log(progress.step, figures)

    def tell(self, progress: Progress) -> None:
        """Tell the watcher, once for all processes."""
        if self.ranks.leads:
            self.callbacks.watch(self.hooks.update(progress))

    def _measure_if_due(self, progress: Progress) -> None:
        every = self.recipe.train.eval_every
        if every and progress.step % every == 0:
            self.hooks.measure(progress)
