"""The live view of a training run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from foresay.adapt import News
from foresay.pretrain import Reading

N = TypeVar("N", News, Reading)


class TrainingView(Generic[N]):
    """Steps, losses and what was measured, redrawn in place; on a plain stream a line now and then."""

    def __init__(self, console: Console, steps: int, say: Callable[[N], tuple[Text, ...]]) -> None:
        """`say` puts what is told after a step into lines; what is told has the run's `progress`."""
        self._console, self._steps = console, steps
        self._say: Callable[[N], tuple[Text, ...]] = say
        self._bar = ProgressBar(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("training", total=steps)
        self._live: Live | None = None
        self._last = 0

    @contextmanager
    def showing(self) -> Iterator["TrainingView[N]"]:
        """Draw while the block runs, from the first step on."""
        try:
            yield self
        finally:
            if self._live is not None:
                self._live.stop()

    def tell(self, news: N) -> None:
        """Show the state after a step."""
        progress = news.progress
        self._bar.update(self._task, completed=progress.step)
        lines = self._say(news)
        if self._console.is_terminal:
            drawn = Group(self._bar, *lines)
            if self._live is None:
                self._live = Live(drawn, console=self._console, refresh_per_second=4)
                self._live.start()
            self._live.update(drawn)
        elif progress.step - self._last >= max(self._steps // 10, 1) or progress.step == self._steps:
            self._last = progress.step
            self._console.print(f"step {progress.step}/{self._steps}", *lines)


def adapter_lines(news: News) -> tuple[Text, ...]:
    """Loss parts and tokens per step."""
    progress, rates = news.progress, news.tokens_per_step
    parts = {
        "base": progress.losses.base,
        "sampler": progress.losses.sampler,
        "consistency": progress.losses.consistency,
    }
    figures = "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
    losses = Text(f"loss {progress.losses.total:.3f}  ({figures})  rate {progress.learning_rate:.1e}")
    if not rates:
        return losses, Text("tokens per step: not decoded yet", style="dim")
    said = _by_domain(rates)
    return losses, Text(f"tokens per step, decoded for real on held-out prompts: {said}", style="bold")


def pretraining_lines(reading: Reading) -> tuple[Text, ...]:
    """Losses, speed and bits per byte."""
    progress = reading.progress
    losses = Text(
        f"loss {progress.losses.total:.3f}  (head 1 {progress.losses.base:.3f})  rate {progress.learning_rate:.1e}  "
        f"{reading.tokens_per_second:,.0f} tokens per second"
    )
    if not reading.bits_per_byte:
        return losses, Text("bits per byte: not measured yet", style="dim")
    return losses, Text(f"bits per byte of held-out examples: {_by_domain(reading.bits_per_byte)}", style="bold")


def _by_domain(figures: dict[str, float]) -> str:
    return "  ".join(f"{domain} {value:.2f}" for domain, value in figures.items())
