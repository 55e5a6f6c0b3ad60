"""Where the figures of a run are logged: TensorBoard, Weights & Biases or trackio, each an extra of its own."""

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Any

from foresay.foundation.errors import ConfigError
from foresay.training.config import TrackerName
from foresay.training.loop.progress import Progress

PROJECT = "foresay"
"""Project of wandb and trackio, unless WANDB_PROJECT names another."""


@dataclass(frozen=True, slots=True)
class Logged:
    """The run whose figures are logged."""

    name: str
    id: str
    """The same at every start of one run, and of no other."""
    folder: Path
    """Where TensorBoard's files go, in a folder named after the id."""
    first_step: int
    """What an earlier start logged from this step on will come again."""
    settings: dict[str, Any]
    """Ready for JSON."""


class Tracker(ABC):
    """Takes the figures of a run, step by step. `sentence` tells a user where to look."""

    sentence: str

    @abstractmethod
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Keep the figures of a step; steps never fall."""

    @abstractmethod
    def close(self, failed: bool = False) -> None:
        """Write what is left; nothing is logged after it."""


class TensorBoardTracker(Tracker):
    """Event files in a folder."""

    def __init__(self, run: Logged) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        own = run.folder / run.id
        _outwait(own)
        # Readers forget what an earlier start wrote from `purge_step` on: no step stands twice.
        self._writer = SummaryWriter(str(own), purge_step=run.first_step)  # type: ignore[no-untyped-call]
        self.sentence = f"figures are logged; see them with: tensorboard --logdir {quote(str(run.folder))}"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Write them to the file at once: a killed run loses none that its checkpoint is ahead of."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        self._writer.flush()  # type: ignore[no-untyped-call]

    def close(self, failed: bool = False) -> None:
        """Close the file."""
        self._writer.close()  # type: ignore[no-untyped-call]


def _outwait(folder: Path) -> None:
    """Wait until a new event file sorts after those of this second in `folder`: readers go by their names.

    The names begin with the second of their making, then comes what does not rise (process, count as text).
    """
    now = f"events.out.tfevents.{int(time.time())}."
    if any(path.name.startswith(now) for path in folder.glob("events.*")):
        time.sleep(1)


class WandbTracker(Tracker):
    """A run of Weights & Biases; WANDB_MODE, WANDB_PROJECT and its other variables are heard."""

    def __init__(self, run: Logged) -> None:
        import wandb  # noqa: PLC0415

        try:
            with redirect_stdout(sys.stderr):  # results alone go to stdout
                self._run = wandb.init(
                    project=os.environ.get("WANDB_PROJECT", PROJECT),
                    name=os.environ.get("WANDB_NAME", run.name),
                    id=run.id,
                    resume="allow",
                    config=run.settings,
                    # It would redraw the live view line by line.
                    settings=wandb.Settings(console="off"),
                )
        except (wandb.Error, OSError) as error:
            why = " ".join(str(error).split())
            raise ConfigError(
                f"wandb could not begin ({why}); `wandb login`, set WANDB_MODE=offline, or give another tracker"
            ) from error
        where = self._run.dir if self._run.offline else self._run.url
        self.sentence = f"figures are logged by wandb, run {run.id}: {where}"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log a step, but not one that an earlier start logged."""
        if step >= self._run.step:
            self._run.log(dict(figures), step=step)

    def close(self, failed: bool = False) -> None:
        """Upload what is left."""
        with redirect_stdout(sys.stderr):
            self._run.finish(exit_code=int(failed))


class TrackioTracker(Tracker):
    """A run of trackio, on this machine."""

    def __init__(self, run: Logged) -> None:
        import trackio  # noqa: PLC0415

        name = f"{run.name}-{run.id}"
        self._end = trackio.finish
        self._logged = trackio.SQLiteStorage.get_max_step_for_run(PROJECT, name) or 0
        with redirect_stdout(sys.stderr):
            self._run = trackio.init(PROJECT, name, resume="allow", config=run.settings, embed=False)
        self.sentence = f"figures are logged by trackio, run {name}; see them with: trackio show --project {PROJECT}"

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Log a step, but not one that an earlier start logged."""
        if step > self._logged:
            self._run.log(dict(figures), step=step)

    def close(self, failed: bool = False) -> None:
        """Write what is left."""
        with redirect_stdout(sys.stderr):
            self._end()


class NoTracker(Tracker):
    """Logs nothing."""

    def __init__(self, sentence: str = "") -> None:
        self.sentence = sentence

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Forget them."""

    def close(self, failed: bool = False) -> None:
        """Nothing is open."""


TRACKERS: dict[str, Callable[[Logged], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "trackio": TrackioTracker,
}


def check_tracker(name: TrackerName) -> None:
    """Raise ConfigError for a tracker that was named and is not installed."""
    if name in TRACKERS and not _installed(name):
        raise ConfigError(
            f"tracker {name} was asked for and is not installed here; pip install 'foresay[{name}]', or give "
            "--tracker none"
        )


def track(name: TrackerName, out: Path, own: str, progress: Progress, settings: dict[str, Any]) -> Tracker:
    """The tracker of the run `own` that writes `out`, TensorBoard's files beside it; it goes on where the run does."""
    folder = out.with_name(f"{out.name}.tensorboard")
    return open_tracker(name, Logged(out.resolve().name, own, folder, max(progress.step, 1), settings))


@contextmanager
def closing(tracker: Callable[[], Tracker]) -> Iterator[None]:
    """Close whichever tracker there is at the end of the block, failed or not."""
    try:
        yield
    except BaseException:
        tracker().close(failed=True)
        raise
    tracker().close()


def open_tracker(name: TrackerName, run: Logged) -> Tracker:
    """The tracker of that name; `auto` is TensorBoard where it is installed, else none, which says so."""
    if name == "none":
        return NoTracker()
    if name == "auto" and not _installed("tensorboard"):
        return NoTracker("no figures are logged: pip install 'foresay[tensorboard]', or name another --tracker")
    return TRACKERS["tensorboard" if name == "auto" else name](run)


def _installed(package: str) -> bool:
    # A test, and a user, may hide a package by putting None in its place, which `find_spec` answers with ValueError.
    try:
        return find_spec(package) is not None
    except ValueError:
        return False
