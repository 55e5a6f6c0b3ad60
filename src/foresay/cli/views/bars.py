"""Progress bars."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from foresay.decoding.step_costs import Watch
from foresay.evaluation.speed.timed_runs import Watching


def progress_bar(console: Console) -> Progress:
    """A bar that vanishes when the work is done; nothing where nobody looks."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


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
