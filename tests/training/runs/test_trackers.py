"""Figures of a run, where they are logged: nothing missing and nothing twice, through a stop too."""

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from foresay.foundation.errors import ConfigError
from foresay.training.runs.trackers import Logged, check_tracker, open_tracker
from foresay.training.train import TrainResult, train
from tests.support.logged import events
from tests.training.loop.test_checkpoint import STEPS, base, data, recipe, stopped_at

__all__ = ["base", "data"]

EVERY: dict[str, Any] = {"eval_every": 6, "save_every": 3, "eval_tokens": 8}


def run(base: Path, data: Path, out: Path, tracker: str) -> tuple[TrainResult, list[str]]:
    told: list[str] = []
    done = train(recipe(base, data, out, **EVERY, tracker=tracker), lambda news: None, told=told.append)
    return done, told


def test_tensorboard_holds_every_figure(base: Path, data: Path, tmp_path: Path) -> None:
    done, told = run(base, data, tmp_path / "out", "tensorboard")
    folder = tmp_path / "out.tensorboard"
    assert told[-1] == f"figures are logged; see them with: tensorboard --logdir {folder}"
    [own] = folder.iterdir()
    found = events(own)
    losses = {f"loss/{part}" for part in ("base", "sampler", "consistency", "total")}
    steps = list(range(1, STEPS + 1))
    for name in (*losses, "learning_rate", "gradient_norm", "rows_per_second"):
        assert [step for step, _ in found[name]] == steps, name
    assert found["loss/total"][-1][1] == pytest.approx(done.loss)
    assert min(value for _, value in found["rows_per_second"]) > 0
    decodes = {decode.step: decode for decode in done.decodes}
    assert list(decodes) == [6, 12, 18, 24]
    positions = [f"{name}/{place}" for name in ("acceptance", "acceptance_given_previous") for place in (1, 2, 3)]
    for name in ("tokens_per_step/heldout", "mean_tokens_per_step", *positions):
        assert [step for step, _ in found[name]] == list(decodes), name
        for step, value in found[name]:
            assert value == pytest.approx(decodes[step].figures[name])
    assert len(found) == len(losses) + 3 + 2 + 6


@pytest.mark.parametrize("step", [2, 13, 18])
def test_a_resumed_run_goes_on_in_the_same_log(step: int, base: Path, data: Path, tmp_path: Path) -> None:
    run(base, data, tmp_path / "whole", "tensorboard")
    stopped_at(step, recipe(base, data, tmp_path / "out", **EVERY, tracker="tensorboard"))
    run(base, data, tmp_path / "out", "tensorboard")
    [whole], [own] = ((tmp_path / f"{name}.tensorboard").iterdir() for name in ("whole", "out"))
    assert len(list(own.iterdir())) == 2, "both starts wrote there"
    one, other = events(whole), events(own)
    for found in (one, other):
        del found["rows_per_second"]
    assert other == one


def test_a_start_within_the_same_second_is_read_behind_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of event files order them: by the second, then by what need not rise."""
    run = Logged(name="run", id="id", folder=tmp_path, first_step=1, settings={})
    for start, step in enumerate((1, 2)):
        monkeypatch.setattr("os.getpid", lambda start=start: 9 + start)  # "10" sorts before "9"
        tracker = open_tracker("tensorboard", replace(run, first_step=step))
        for later in range(step, 4):
            tracker.log(later, {"loss": 10 * start + later})
        tracker.close()
    assert events(tmp_path / "id") == {"loss": [(1, 1), (2, 12), (3, 13)]}


def test_another_run_has_a_log_of_its_own(base: Path, data: Path, tmp_path: Path) -> None:
    run(base, data, tmp_path / "out", "tensorboard")
    (tmp_path / "out").rename(tmp_path / "first")
    run(base, data, tmp_path / "out", "tensorboard")
    assert len(list((tmp_path / "out.tensorboard").iterdir())) == 2


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_named_tracker_must_be_installed(
    name: Any, base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"{name} .* not installed here; pip install 'foresay\[{name}\]', or give"):
        run(base, data, tmp_path / "out", name)
    assert list(tmp_path.iterdir()) == []


def test_auto_does_without_and_says_so(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    check_tracker("auto")
    _, told = run(base, data, tmp_path / "out", "auto")
    assert told[-1] == "no figures are logged: pip install 'foresay[tensorboard]', or name another --tracker"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# Packages that are not there when the tests run: what is asked of them. They were tried for real by hand.


class Recorder:
    """Stands for the run object of wandb and of trackio."""

    offline, dir = True, "wandb/offline-run"

    def __init__(self, step: int = 0) -> None:
        self.step, self.logged, self.ended = step, list[tuple[int, dict[str, float]]](), None

    def log(self, figures: dict[str, float], step: int) -> None:
        self.logged.append((step, figures))

    def finish(self, exit_code: int | None = None) -> None:
        self.ended = exit_code


def logged(tmp_path: Path) -> Logged:
    return Logged("out", "20260101-000000-abcdef", tmp_path, 3, {"rank": 4})


def test_wandb_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    recorder, module = Recorder(step=5), ModuleType("wandb")
    module.__dict__.update(Error=RuntimeError, Settings=dict, init=lambda **more: asked.update(more) or recorder)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    tracker = open_tracker("wandb", logged(tmp_path))
    for step in (3, 4, 5, 6):
        tracker.log(step, {"loss/total": 1.0 / step})
    tracker.close(failed=True)
    assert recorder.logged == [(5, {"loss/total": 1 / 5}), (6, {"loss/total": 1 / 6})], "5 is its next one"
    assert recorder.ended == 1
    assert (asked["id"], asked["resume"], asked["project"]) == ("20260101-000000-abcdef", "allow", "mine")
    assert asked["config"] == {"rank": 4}


def test_wandb_that_cannot_begin_is_answered_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**more: Any) -> None:
        raise RuntimeError("api_key not configured (no-tty).\nCall wandb.login")

    module = ModuleType("wandb")
    module.__dict__.update(Error=RuntimeError, Settings=dict, init=init)
    monkeypatch.setitem(sys.modules, "wandb", module)
    with pytest.raises(ConfigError, match=r"wandb could not begin \(api_key .*login\); `wandb login`, set WANDB_MODE"):
        open_tracker("wandb", logged(tmp_path))


def test_trackio_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    recorder, module = Recorder(), ModuleType("trackio")

    def init(*given: Any, **more: Any) -> Recorder:
        print("* Trackio project initialized")
        asked.extend([*given, more])
        return recorder

    storage = SimpleNamespace(get_max_step_for_run=lambda project, name: 4)
    module.__dict__.update(init=init, finish=lambda: print("* Run finished"), SQLiteStorage=storage)
    monkeypatch.setitem(sys.modules, "trackio", module)
    tracker = open_tracker("trackio", logged(tmp_path))
    for step in (3, 4, 5):
        tracker.log(step, {"loss/total": 1.0})
    tracker.close()
    assert recorder.logged == [(5, {"loss/total": 1.0})]
    assert asked[:2] == ["foresay", "out-20260101-000000-abcdef"]
    assert asked[2]["resume"] == "allow"
    assert capsys.readouterr().out == "", "results alone go to stdout"
