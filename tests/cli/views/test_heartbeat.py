"""Without a terminal, whatever takes long says how far it is."""

import io
import re
from threading import Event

import pytest
from rich.console import Console

from foresay.cli.terminal import Terminal, signs_of_life
from foresay.cli.views.bars import progress_bar, tell_task
from foresay.cli.views.training import AdapterLines, TrainingView
from foresay.foundation import heartbeat
from foresay.foundation.heartbeat import beating, span
from foresay.training.loop.progress import Losses, Progress
from foresay.training.runs.adapter_run import TrainUpdate


class Heard(io.StringIO):
    """A stream that is no terminal, and that says when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.something = Event()

    def write(self, text: str) -> int:
        self.something.set()
        return super().write(text)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def console(heard: Heard) -> Console:
    return Console(file=heard, width=120)


def test_a_beat_comes_again_and_again_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SECONDS", 0.001)
    beats, three = list[int](), Event()

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            three.set()

    with beating(beat):
        assert three.wait(60)
    seen = len(beats)
    assert not Event().wait(0.01)
    assert len(beats) == seen


def test_a_plain_stream_is_told_without_an_update(
    heard: Heard, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SECONDS", 0.001)
    with progress_bar(console) as bar:
        bar.add_task("answering", total=12)
        assert heard.something.wait(60)
    assert re.match(r"answering: 0 of 12, after \d+ s\n", heard.getvalue())


def test_a_line_says_how_far_the_task_at_work_is(heard: Heard, console: Console) -> None:
    with progress_bar(console) as bar:
        done, task, other = (bar.add_task(name, total=total) for name, total in (("a", 1), ("b", None), ("c", 4)))
        bar.update(done, completed=1)
        bar.update(task, completed=7)
        tell_task(bar, console)
        bar.update(task, visible=False)
        bar.advance(other)
        bar.advance(other)
        tell_task(bar, console)
    first, second = heard.getvalue().splitlines()
    assert re.fullmatch(r"b: 7, after \d+ s", first)
    assert re.fullmatch(r"c: 2 of 4, after \d+ s(, about \d+ s left)?", second)


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foresay.cli.views.bars.beating", lambda _: pytest.fail("lines were printed"))
    with progress_bar(Console(file=io.StringIO(), force_terminal=True)) as bar:
        bar.add_task("answering", total=None)


def news(step: int, loss: float) -> TrainUpdate:
    return TrainUpdate(Progress(step, Losses(total=loss, rows=4.0), step_seconds=1.0))


@pytest.fixture
def view(console: Console) -> TrainingView[TrainUpdate]:
    return TrainingView(console, 9, AdapterLines())


def test_training_is_told_when_it_begins_at_every_beat_and_at_its_end(
    heard: Heard, view: TrainingView[TrainUpdate]
) -> None:
    with view.showing():
        view.beat()
        view.tell(news(1, 5.0))
        view.tell(news(2, 4.0))
        view.tell(news(3, 3.0))
        view.beat()
        view.beat()
        view.tell(news(4, 2.0))
    lines = [line for line in heard.getvalue().splitlines() if not line.startswith(" ")]
    assert lines == ["at work, step 0/9", "step 1/9", "step 3/9", "at work, step 3/9", "step 4/9"]


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (119, "119 s"), (300, "5 min"), (9000, "2.5 h")])
def test_times_are_said_shortly(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_the_time_left_is_not_that_of_the_last_burst(heard: Heard, console: Console) -> None:
    """Batches of 16, one a minute, whose prompts are counted within a moment of each other."""
    clock = [0.0]
    with progress_bar(console) as bar:
        bar.get_time = lambda: clock[0]
        task = bar.add_task("checking", total=160)
        for _ in range(4):
            clock[0] += 60
            for _ in range(16):
                clock[0] += 0.001
                bar.advance(task)
        left = next(one for one in bar.tasks if one.id == task).time_remaining
    assert left is not None
    assert 3 * 60 < left < 12 * 60, "six batches are left"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_told_of_work_until_the_verb_says_something(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars are drawn from then on; before, imports alone may take longer than anybody waits without a sign."""
    heard = Heard()
    monkeypatch.setattr(heartbeat, "SECONDS", 0.05)
    monkeypatch.setattr("foresay.cli.terminal.OUT", Terminal(file=io.StringIO()))
    err = Terminal(file=heard, force_terminal=terminal, color_system=None)
    monkeypatch.setattr("foresay.cli.terminal.ERR", err)
    with signs_of_life("train"):
        assert heard.something.wait(60)
        err.print("base: nano")
        heard.something.clear()
        assert heard.something.wait(0.4 if terminal else 60) is not terminal
    before, after = heard.getvalue().split("base: nano\n")
    assert re.match(r"train: at work for \d+ s\n", before)
    assert bool(after) is not terminal
