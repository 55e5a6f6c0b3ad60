"""What is kept is what decoded best, wherever the run was stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foresay.model import MultiTokenModel
from foresay.training.runs.validation import HeldOut, Measured
from foresay.training.train import TrainResult, train
from tests.training.loop.test_checkpoint import StoppedError, base, data, recipe, same, stopped_at, weights

__all__ = ["base", "data"]

BEST, STEPS = 9, 24
RATES = {3: 1.2, 6: 1.3, BEST: 1.6, 12: 1.5, 15: 1.6, 18: 1.1, 21: 1.2, 24: 1.4}
"""Tokens per step of the decode at each step, as if: the best comes early, and again."""
KEEP: dict[str, Any] = {"keep": "best", "eval_every": 3, "save_every": 6, "eval_tokens": 8}


@pytest.fixture(autouse=True)
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Decodes find what `RATES` says; the steps that were decoded."""
    real, decoded = HeldOut.measure, list[int]()

    def measure(self: HeldOut, model: MultiTokenModel, step: int = 0, *more: Any) -> Measured:
        decoded.append(step)
        return replace(real(self, model, step, *more), tokens_per_step={"heldout": RATES[step]})

    monkeypatch.setattr(HeldOut, "measure", measure)
    return decoded


@pytest.fixture(scope="module")
def at_best(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The adapter after step `BEST`."""
    out = tmp_path_factory.mktemp("best") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeldOut, "measure", lambda self, model, step=0, *_: Measured(step, "", 1, {"heldout": 1.0}, ()))
        train(recipe(base, data, out), lambda news: None, stop=lambda progress: progress.step == BEST)
    return weights(out)


def finish(base: Path, data: Path, out: Path, **changes: Any) -> TrainResult:
    return train(recipe(base, data, out, **KEEP | changes), lambda news: None)


def check_best(out: Path, done: TrainResult, at_best: dict[str, torch.Tensor]) -> None:
    """The folder and the model at hand are the best adapter, and say so."""
    assert same(weights(out), at_best)
    said = MultiTokenModel.from_pretrained(out).provenance["settings"]
    assert (said["steps"], said["measured"]["step"], said["measured"]["mean"]) == (BEST, BEST, RATES[BEST])
    assert done.measured is not None
    assert (done.measured.step, done.tokens_per_step, done.steps) == (BEST, {"heldout": RATES[BEST]}, STEPS)
    pair = done.model.mask_model.adapter.pairs[0]
    assert torch.equal(pair.up, at_best[f"base_model.model.{pair.name}.lora_B.weight"])
    assert done.model.provenance["settings"]["steps"] == BEST
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_the_best_is_kept(
    base: Path, data: Path, at_best: dict[str, torch.Tensor], scripted: list[int], tmp_path: Path
) -> None:
    done = finish(base, data, tmp_path / "out")
    check_best(tmp_path / "out", done, at_best)
    assert [found.step for found in done.decodes] == scripted == list(RATES), "each is decoded once"


@pytest.mark.parametrize("step", [2, 3, 7, 9, 10, 13, 18, 23])
def test_it_is_kept_through_a_stop(
    step: int, base: Path, data: Path, at_best: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stopped_at(step, recipe(base, data, out, **KEEP))
    check_best(out, finish(base, data, out), at_best)


@pytest.mark.parametrize(
    "where",
    [
        "foresay.model.MultiTokenModel.decode",
        "foresay.models.artefact.folder.save",
        "foresay.training.runs.run.Run.tell",
    ],
)
@pytest.mark.parametrize("save_every", [3, 9, 24])
def test_it_is_kept_through_a_stop_behind_its_checkpoint(
    save_every: int,
    where: str,
    base: Path,
    data: Path,
    at_best: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    """Stopped in the decode at the best step, or while it was saved, or right after."""
    out, real = tmp_path / "out", HeldOut.measure

    def stop_here(*args: Any, **more: Any) -> None:
        raise StoppedError

    with pytest.MonkeyPatch.context() as patch:

        def measure(self: HeldOut, model: MultiTokenModel, step: int = 0, *more: Any) -> Measured:
            if step == BEST and where == "foresay.model.MultiTokenModel.decode":
                patch.setattr(where, stop_here)
            found = real(self, model, step, *more)
            if step == BEST:
                patch.setattr(where, stop_here)
            return found

        patch.setattr(HeldOut, "measure", measure)
        with pytest.raises(StoppedError):
            finish(base, data, out, save_every=save_every)
    check_best(out, finish(base, data, out, save_every=save_every), at_best)


def test_figures_of_another_decode_do_not_count(base: Path, data: Path, tmp_path: Path) -> None:
    """Longer decodes accept more or less: what was best by the shorter ones is not compared with them."""
    out = tmp_path / "out"
    stopped_at(13, recipe(base, data, out, **KEEP))
    done = finish(base, data, out, eval_tokens=9)
    assert done.measured is not None
    assert done.measured.step == 15
    assert MultiTokenModel.from_pretrained(out).provenance["settings"]["steps"] == 15


def test_another_runs_adapter_does_not_count(
    base: Path, data: Path, at_best: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """What a finished run left in the folder is no part of the next one, though it was trained alike."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RATES, 18, 2.0)
        finish(base, data, out)
    asked = replace(recipe(base, data, out, **KEEP | {"save_every": 1}), overwrite=True)
    stopped_at(2, asked)  # it has a checkpoint, and decoded nothing yet
    check_best(out, train(asked, lambda news: None), at_best)
