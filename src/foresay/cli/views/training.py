"""The live view of a training run."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import Generic, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from foresay.foundation.heartbeat import beating
from foresay.training.runs.adapter_run import TrainUpdate
from foresay.training.runs.pretrain_run import PretrainUpdate
from foresay.training.runs.validation import Measured

N = TypeVar("N", TrainUpdate, PretrainUpdate)
RECENT = 20
"""Steps that rows per second are averaged over."""


class TrainingView(Generic[N]):
    """Steps, losses and what was measured, redrawn in place; without a terminal what is new, every few seconds."""

    def __init__(self, console: Console, steps: int, say: Callable[[N], list[Text]]) -> None:
        """`say` puts what is told after a step into lines; what is told has the run's `progress`."""
        self._console, self._steps = console, steps
        self._say: Callable[[N], list[Text]] = say
        self._bar = ProgressBar(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("training", total=steps)
        self._live: Live | None = None
        self._step, self._lines, self._printed = 0, list[Text](), set[str]()
        self._lock = Lock()

    @contextmanager
    def showing(self) -> Iterator["TrainingView[N]"]:
        """Draw while the block runs, from the first step on."""
        beats = nullcontext() if self._console.is_terminal else beating(self.beat)
        try:
            with beats:
                yield self
        finally:
            if self._live is not None:
                self._live.stop()
            self._print()

    def tell(self, news: N) -> None:
        """Show the state after a step."""
        step, lines = news.progress.step, self._say(news)
        self._bar.update(self._task, completed=step)
        if not self._console.is_terminal:
            with self._lock:
                first = not self._step
                self._step, self._lines = step, lines
            if first:
                self._print()
        else:
            drawn = Group(self._bar, *lines)
            if self._live is None:
                self._live = Live(drawn, console=self._console, refresh_per_second=4)
                self._live.start()
            self._live.update(drawn)

    def beat(self) -> None:
        """Print what is new; where nothing is, that work goes on: a base is loaded, or prompts are decoded."""
        if not self._print():
            self._console.print(f"at work, step {self._step}/{self._steps}", highlight=False)

    def _print(self) -> bool:
        """Print the lines that were not printed yet; false where there are none."""
        with self._lock:
            fresh = [line for line in self._lines if line.plain not in self._printed]
            self._printed = {line.plain for line in self._lines}
            if fresh:
                self._console.print(f"step {self._step}/{self._steps}", *fresh, sep="\n  ")
        return bool(fresh)


class AdapterLines:
    """Loss parts, mask rows per second, and what was decoded: the lines of an adapter's training."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)

    def __call__(self, news: TrainUpdate) -> list[Text]:
        """The lines after a step."""
        progress, losses = news.progress, news.progress.losses
        self._recent.append((losses.rows, progress.step_seconds))
        parts = {"base": losses.base, "sampler": losses.sampler, "consistency": losses.consistency}
        figures = "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
        rows, seconds = (sum(values) for values in zip(*self._recent))
        speed = f"{rows / seconds:,.0f} mask rows/s" if seconds else ""
        pace = f"rate {progress.learning_rate:.1e}  gradient {progress.gradient_norm:.2f}  {speed}"
        return [Text(f"loss {losses.total:.3f}  ({figures})"), Text(pace), *decode_lines(news)]


def decode_lines(news: TrainUpdate) -> list[Text]:
    """What the last decode of held-out prompts found, and which adapter is kept."""
    found, best = news.measured, news.best
    if found is None:
        return [Text("tokens per step: not decoded yet", style="dim")]
    lines = [
        Text(f"held-out prompts decoded at step {found.step}, tokens per step:"),
        # Wrapped where there are many domains: a live view would cut the line.
        Text(f"  {rates(found)}", style="bold", no_wrap=False, overflow="fold"),
        Text(f"drafts kept, by position, %: {shares(found, given_previous=False)}"),
        Text(f"given the one before, %:     {shares(found, given_previous=True)}"),
    ]
    if best is not None:
        own = "this is the best so far" if best.step == found.step else f"the best is that of step {best.step}"
        lines.append(Text(f"{own}, mean {best.mean:.2f}: it is kept"))
    return lines


def rates(found: Measured) -> str:
    """Tokens per step in words."""
    domains = "  ".join(f"{domain} {rate:.2f}" for domain, rate in found.tokens_per_step.items())
    return domains if len(found.tokens_per_step) == 1 else f"{domains}  mean {found.mean:.2f}"


def shares(found: Measured, given_previous: bool) -> str:
    """Acceptance of each draft position, in hundredths."""
    entries = found.acceptance
    return " ".join(f"{100 * (entry.conditional if given_previous else entry.unconditional):.0f}" for entry in entries)


def pretraining_lines(reading: PretrainUpdate) -> list[Text]:
    """Losses, speed and bits per byte."""
    progress = reading.progress
    losses = Text(
        f"loss {progress.losses.total:.3f}  (head 1 {progress.losses.base:.3f})  rate {progress.learning_rate:.1e}  "
        f"{reading.tokens_per_second:,.0f} tokens per second"
    )
    if not reading.bits_per_byte:
        return [losses, Text("bits per byte: not measured yet", style="dim")]
    return [losses, Text(f"bits per byte of held-out examples: {_by_domain(reading.bits_per_byte)}", style="bold")]


def _by_domain(figures: dict[str, float]) -> str:
    return "  ".join(f"{domain} {value:.2f}" for domain, value in figures.items())
