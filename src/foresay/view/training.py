"""The live view of a training run."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from foresay.adapt import News


class TrainingView:
    """Steps, loss parts and tokens per step, redrawn in place; on a plain stream a line now and then."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps = console, steps
        self._bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("training", total=steps)
        self._live: Live | None = None
        self._last = 0

    @contextmanager
    def showing(self) -> Iterator["TrainingView"]:
        """Draw while the block runs, from the first step on."""
        try:
            yield self
        finally:
            if self._live is not None:
                self._live.stop()

    def tell(self, news: News) -> None:
        """Show the state after a step."""
        progress = news.progress
        self._bar.update(self._task, completed=progress.step)
        lines = Group(self._bar, self._losses(news), self._decodes(news))
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(lines, console=self._console, refresh_per_second=4)
                self._live.start()
            self._live.update(lines)
        elif progress.step - self._last >= max(self._steps // 10, 1) or progress.step == self._steps:
            self._last = progress.step
            self._console.print(f"step {progress.step}/{self._steps}", self._losses(news), self._decodes(news))

    def _losses(self, news: News) -> Text:
        progress = news.progress
        parts = {
            "base": progress.losses.base,
            "sampler": progress.losses.sampler,
            "consistency": progress.losses.consistency,
        }
        figures = "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
        return Text(f"loss {progress.losses.total:.3f}  ({figures})  rate {progress.learning_rate:.1e}")

    def _decodes(self, news: News) -> Text:
        if not news.tokens_per_step:
            return Text("tokens per step: not decoded yet", style="dim")
        figures = "  ".join(f"{domain} {value:.2f}" for domain, value in news.tokens_per_step.items())
        return Text(f"tokens per step, decoded for real on held-out prompts: {figures}", style="bold")
