"""A run that is killed goes on exactly: the losses and the weights of a run that nobody disturbed, bit for bit."""

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from foresay.foundation.errors import ArtefactError
from foresay.models.base.load import load_tokenizer
from foresay.models.config import MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.loop import checkpoint as checkpoint_module
from foresay.training.objectives import masks as masks_module
from foresay.training.recipe import Recipe
from foresay.training.runs.adapter_run import TrainUpdate
from foresay.training.train import train
from tests.support.processes import killed_often, killed_until_done
from tests.support.toys import LLAMA

STEPS = 24
MTP = MTPConfig(num_masks=3, rank=4, train_masks=False)
TRAIN = {
    "steps": STEPS,
    "sequences": 3,
    "anchors": 3,
    "curriculum_steps": 8,
    "warmup_steps": 5,
    "learning_rate": 1e-2,
    "weight_decay": 0.1,
    "max_length": 48,
    "heldout": 1,
    "save_every": 3,
    "tracker": "none",
}
"""An epoch has 4 batches, so that every kill falls into another one."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    LLAMA.model(vocab_size=4096).save_pretrained(folder)
    load_tokenizer("nano").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    rows = [{"prompt": f"Count to {n}.", "response": " ".join(map(str, range(n + 2)))} for n in range(13)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def recipe(base: Path, data: Path, out: Path, restart: bool = False, **changes: Any) -> Recipe:
    train = TrainConfig(**{**TRAIN, **changes})
    return Recipe(str(base), (data,), out, MTP, LossConfig(kl_weight=0.5), train, restart=restart)


def run(asked: Recipe) -> dict[int, str]:
    """The losses of every step, to the last bit, as the watcher is told of them."""
    losses: dict[int, str] = {}

    def watch(news: TrainUpdate) -> None:
        losses[news.progress.step] = repr(news.progress.losses)

    train(asked, watch)
    return losses


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "foresay.safetensors") | load_file(out / "lora" / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class StoppedError(Exception):
    """The run was stopped from inside, for tests that need no process of their own."""


def stopped_at(step: int, asked: Recipe) -> None:
    def watch(news: TrainUpdate) -> None:
        if news.progress.step == step:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(asked, watch)


@pytest.fixture(scope="module")
def whole(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, str], Path]:
    """A run that nobody disturbed: its losses and its folder."""
    out = tmp_path_factory.mktemp("whole") / "out"
    losses = run(recipe(base, data, out))
    assert list(losses) == list(range(1, STEPS + 1))
    assert [path.name for path in out.parent.iterdir()] == ["out"], "a finished run leaves its artefact alone"
    return losses, out


# Killed, in a process of its own.


KILLED: dict[str, dict[str, Any]] = {
    "as it is": {},
    "packed": {"pack": True},
    "keep best": {"keep": "best", "eval_every": 4, "eval_tokens": 8, "heldout": 2},
}


def train_logged(asked: Recipe, log: Path) -> None:
    """The run that is killed."""

    def watch(news: TrainUpdate) -> None:
        with log.open("a") as file:
            file.write(f"{news.progress.step} {news.progress.losses!r}\n")

    train(asked, watch)


@pytest.mark.parametrize("kind", KILLED)
def test_killed_runs_lose_nothing(kind: str, base: Path, data: Path, tmp_path: Path) -> None:
    undisturbed = tmp_path / "whole" / "out"
    losses = run(recipe(base, data, undisturbed, **KILLED[kind]))

    def begin(folder: Path, chance: random.Random) -> int:
        asked, log = recipe(base, data, folder / "out", **KILLED[kind]), folder / "log"
        return killed_until_done(asked.out, log, chance, train_logged, asked, log)

    for folder in killed_often(tmp_path, begin):
        told = [line.split(" ", 1) for line in (folder / "log").read_text().splitlines()]
        assert told[-1][0] == str(STEPS)
        for step, said in told:
            assert said == losses[int(step)], f"step {step} says {said}, undisturbed {losses[int(step)]}"
        assert same(weights(folder / "out"), weights(undisturbed))
        assert measured(folder / "out") == measured(undisturbed)
        assert not (folder / "out.run").exists()


def over_but_slow_to_end(out: Path, log: Path) -> None:
    """A run whose process lives on when all is done; started again it fails, as training into a full folder does."""
    out.mkdir()
    log.write_text("1\n" * 9)
    time.sleep(60)


def test_a_run_that_is_over_is_not_started_again(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    assert killed_until_done(out, log, random.Random(1), over_but_slow_to_end, out, log) == 0


def measured(out: Path) -> Any:
    """What the artefact says that it decoded."""
    return json.loads((out / "foresay.json").read_text())["provenance"]["settings"]["measured"]


# Stopped at a known step.


@pytest.mark.parametrize("step", [2, 3, 10, 23])
def test_a_stopped_run_goes_on_exactly(
    step: int, base: Path, data: Path, whole: tuple[dict[int, str], Path], tmp_path: Path
) -> None:
    asked = recipe(base, data, tmp_path / "out")
    stopped_at(step, asked)
    torch.manual_seed(step)
    told = run(asked)
    assert list(told) == list(range(step // 3 * 3 + 1, STEPS + 1)), "it begins after the last checkpoint"
    assert told == {number: whole[0][number] for number in told}
    assert same(weights(tmp_path / "out"), weights(whole[1]))


def test_a_run_with_muon_goes_on_exactly(base: Path, data: Path, tmp_path: Path) -> None:
    alike = [recipe(base, data, tmp_path / name, optimizer="muon") for name in ("whole", "out")]
    whole = run(alike[0])
    stopped_at(10, alike[1])
    told = run(alike[1])
    assert told == {number: whole[number] for number in range(10, STEPS + 1)}
    assert same(weights(tmp_path / "out"), weights(tmp_path / "whole"))


def test_a_run_killed_while_it_finished_only_finishes(
    base: Path, data: Path, whole: tuple[dict[int, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(base, data, tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("foresay.training.runs.run.Run.finish", stop_here)
        with pytest.raises(StoppedError):
            run(asked)
    monkeypatch.setattr(masks_module, "two_pass", stop_here)
    assert run(asked) == {STEPS: whole[0][STEPS]}
    assert same(weights(tmp_path / "out"), weights(whole[1]))


def stop_here(*args: Any, **more: Any) -> None:
    raise StoppedError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_checkpoints_are_kept(base: Path, data: Path, tmp_path: Path) -> None:
    stopped_at(13, recipe(base, data, tmp_path / "out", keep_checkpoints=3))
    assert names(tmp_path / "out.run") == [f"checkpoint-{step:08d}" for step in (6, 9, 12)]


@pytest.mark.parametrize("kind", ["cut", "lost", "changed", "no state"])
def test_a_torn_checkpoint_gives_way_to_the_one_before(
    kind: str,
    base: Path,
    data: Path,
    whole: tuple[dict[int, str], Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = recipe(base, data, tmp_path / "out")
    stopped_at(13, asked)
    tear(tmp_path / "out.run" / "checkpoint-00000012", kind)
    told = run(asked)
    assert min(told) == 10
    assert "checkpoint-00000012 is torn; looking for the one before it" in caplog.text
    assert same(weights(tmp_path / "out"), weights(whole[1]))


def tear(checkpoint: Path, kind: str) -> None:
    [values] = checkpoint.glob("*.distcp")
    content = bytearray(values.read_bytes())
    match kind:
        case "cut":
            values.write_bytes(content[:-1])
        case "lost":
            values.unlink()
        case "changed":
            content[len(content) // 2] ^= 1
            values.write_bytes(content)
        case "no state":
            (checkpoint / checkpoint_module.STATE).unlink()


def test_a_run_without_a_whole_checkpoint_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    asked = recipe(base, data, tmp_path / "out")
    stopped_at(7, asked)
    for checkpoint in (tmp_path / "out.run").iterdir():
        tear(checkpoint, "cut")
    with pytest.raises(ArtefactError, match=r"no checkpoint in .*out\.run is whole; give --restart to begin anew"):
        run(asked)


def test_a_checkpoint_that_cannot_be_written_leaves_those_before(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(base, data, tmp_path / "out")
    stopped_at(4, asked)

    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "save", full)
        with pytest.raises(ArtefactError, match=r"could not be written .*No space left.*those before it stand"):
            run(asked)
    assert min(run(asked)) == 4


# Another run's checkpoints.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e-3}, r"learning_rate was 0.01, is 0.001; go on as it was begun, or give --restart"),
        ({"steps": 30}, "steps was 24, is 30"),
        ({"seed": 1, "sequences": 2}, r"data\.sha256 was .*; seed was 0, is 1; sequences was 3, is 2"),
        ({"heldout": 2}, r"data\.examples was 12, is 11; data\.sha256 was"),
    ],
)
def test_another_run_is_refused(changes: dict[str, Any], message: str, base: Path, data: Path, tmp_path: Path) -> None:
    stopped_at(4, recipe(base, data, tmp_path / "out"))
    before = names(tmp_path / "out.run")
    with pytest.raises(ArtefactError, match=message):
        run(recipe(base, data, tmp_path / "out", **changes))
    assert names(tmp_path / "out.run") == before


def test_other_data_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    stopped_at(4, recipe(base, data, tmp_path / "out"))
    other = tmp_path / "data.jsonl"
    other.write_text(data.read_text().replace("Count to 3.", "Count to three."))
    with pytest.raises(ArtefactError, match=r'data\.sha256 was "\w+", is "\w+"; go on'):
        run(recipe(base, other, tmp_path / "out"))


def test_another_base_is_refused(base: Path, data: Path, tmp_path: Path) -> None:
    stopped_at(4, recipe(base, data, tmp_path / "out"))
    other = tmp_path / "base"
    shutil.copytree(base, other)
    model = LLAMA.model(vocab_size=4096)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.01)
    model.save_pretrained(other)
    with pytest.raises(ArtefactError, match=r"base\.base was"):
        run(recipe(other, data, tmp_path / "out"))


def test_what_does_not_change_the_weights_may_change(
    base: Path, data: Path, whole: tuple[dict[int, str], Path], tmp_path: Path
) -> None:
    stopped_at(7, recipe(base, data, tmp_path / "out"))
    run(recipe(base, data, tmp_path / "out", save_every=4, keep_checkpoints=1, eval_every=10))
    assert same(weights(tmp_path / "out"), weights(whole[1]))


def test_a_restart_begins_anew(base: Path, data: Path, tmp_path: Path) -> None:
    stopped_at(4, recipe(base, data, tmp_path / "out"))
    shutil.rmtree(tmp_path / "out")
    assert min(run(recipe(base, data, tmp_path / "out", restart=True, seed=1))) == 1
