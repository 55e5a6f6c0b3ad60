"""The live view of a training run."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from foresay.heldout import Measured
from foresay.run import News

RECENT = 20
"""Steps that rows per second are averaged over."""


class TrainingView:
    """Steps, loss parts, rows per second and tokens per step, redrawn in place; on a plain stream now and then."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console, self._steps = console, steps
        self._bar = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("training", total=steps)
        self._live: Live | None = None
        self._last, self._decoded = 0, -1
        self._recent: deque[tuple[float, float]] = deque(maxlen=RECENT)

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
        self._recent.append((progress.losses.rows, progress.step_seconds))
        self._bar.update(self._task, completed=progress.step)
        if self._console.is_terminal:
            lines = Group(self._bar, *self._training(news), *decode_lines(news))
            if self._live is None:
                self._live = Live(lines, console=self._console, refresh_per_second=4)
                self._live.start()
            self._live.update(lines)
            return
        if progress.step - self._last >= max(self._steps // 10, 1) or progress.step == self._steps != self._last:
            self._last = progress.step
            self._console.print(f"step {progress.step}/{self._steps}", *self._training(news), sep="  ")
        if news.measured and news.measured.step > self._decoded:
            self._decoded = news.measured.step
            self._console.print(*decode_lines(news), sep="\n")

    def _training(self, news: News) -> list[Text]:
        progress = news.progress
        losses = progress.losses
        parts = {"base": losses.base, "sampler": losses.sampler, "consistency": losses.consistency}
        figures = "  ".join(f"{name} {value:.3f}" for name, value in parts.items())
        rows, seconds = (sum(values) for values in zip(*self._recent))
        speed = f"{rows / seconds:,.0f} mask rows/s" if seconds else ""
        pace = f"rate {progress.learning_rate:.1e}  gradient {progress.gradient_norm:.2f}  {speed}"
        return [Text(f"loss {losses.total:.3f}  ({figures})"), Text(pace)]


def decode_lines(news: News) -> list[Text]:
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
