"""Progress bars."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn

from foresay.decoding.step_costs import Watch
from foresay.evaluation.speed.timed_runs import Watching
from foresay.foundation.heartbeat import beating, span

RECENT = 600.0
"""Seconds of progress that the time left is told from: batches end in bursts, and half a minute may hold one alone."""


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    """A bar that vanishes when the work is done; without a terminal, a line every few seconds."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        speed_estimate_period=RECENT,
    )
    lines = nullcontext() if console.is_terminal else beating(lambda: tell_task(bar, console))
    with bar, lines:
        yield bar


def tell_task(bar: Progress, console: Console) -> None:
    """Print how far the first task is that is at work."""
    at_work = next((task for task in bar.tasks if task.visible and not task.finished), None)
    if at_work is not None:
        console.print(task_line(at_work), highlight=False)


def task_line(task: Task) -> str:
    """A task in one line: what, how far, since when, how much longer."""
    said = f"{task.description}: {task.completed:.0f}" + ("" if task.total is None else f" of {task.total:.0f}")
    left = "" if task.time_remaining is None else f", about {span(task.time_remaining)} left"
    return f"{said}, after {span(task.elapsed or 0)}{left}"


def bench_watching(bar: Progress) -> Watching:
    """Moves `bar` with every turn of a decoder."""
    task = bar.add_task("warming up", total=None)

    def turn(name: str, done: int, total: int) -> None:
        bar.update(task, completed=done, total=total, description=name)

    return Watching(turn, calibration_watch(bar))


def calibration_watch(bar: Progress) -> Watch:
    """Gives `bar` a line for as long as steps are measured, so that a user sees what is waited for."""
    tasks: list[TaskID] = []

    def watch(share: float) -> None:
        if not tasks:
            tasks.append(bar.add_task("timing steps, once", total=100))
        bar.update(tasks[0], completed=100 * share, visible=share < 1)

    return watch
