"""Pretraining in two processes, with whole weights or shards, is pretraining in one."""

import json
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from foresay.models.config import HeadsConfig
from foresay.training.loop import optimizers as optimizer
from foresay.training.loop.distributed import Ranks
from foresay.training.loop.progress import Progress
from foresay.training.pretrain import pretrain
from foresay.training.recipe import PretrainRecipe
from foresay.training.runs.pretrain_run import PretrainUpdate
from tests.support.pretraining import (
    STEPS,
    TRAIN,
    VARIANTS,
    data,
    design,
    recipe,
    weights,
)
from tests.support.processes import start, start_together

__all__ = ["data", "design"]


def pretrain_logged(asked: PretrainRecipe, last: int = STEPS, exact: bool = True) -> None:
    """Train, and leave at step `last` of 12 if that is not the end; what was told stands in a file beside `out`.

    `exact` keeps Muon from bfloat16, in which it makes another step of another rounding.
    """

    def log(reading: PretrainUpdate) -> None:
        said = reading.progress
        with asked.out.with_suffix(".log").open("a") as file:
            file.write(json.dumps([said.step, said.losses.total, said.gradient_norm]) + "\n")

    def leave(progress: Progress) -> bool:
        if progress.step == last < STEPS:
            os._exit(0)
        return False

    if exact:
        optimizer.multiplies_bfloat16 = lambda device: False
    pretrain(asked, log, leave)


def together(asked: PretrainRecipe, last: int = STEPS, exact: bool = True) -> list[Any]:
    """Pretrain in one process (`none`) or two; what was logged so far."""
    work = (pretrain_logged, asked, last, exact)
    processes = [start(*work)] if asked.train.parallel == "none" else start_together(2, *work)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    return [json.loads(line) for line in asked.out.with_suffix(".log").read_text().splitlines()]


def assert_same_losses(told: list[Any], expected: list[Any], within: float = 1e-5, steps: int = STEPS) -> None:
    """Losses of all steps; gradient norms ten times less exactly."""
    assert [step for step, *_ in told] == [*range(1, steps + 1), steps]
    for (_, loss, norm), (_, wanted, wanted_norm) in zip(told, expected, strict=True):
        assert loss == pytest.approx(wanted, rel=within)
        assert norm == pytest.approx(wanted_norm, rel=10 * within)


def assert_alike(told: list[Any], expected: list[Any], out: Path, expected_out: Path) -> None:
    assert_same_losses(told, expected)
    for name, tensor in weights(expected_out).items():
        torch.testing.assert_close(weights(out)[name], tensor, atol=1e-4, rtol=1e-3, msg=name)
    assert MultiTokenModel.from_pretrained(out).acceptance == pytest.approx(
        MultiTokenModel.from_pretrained(expected_out).acceptance
    )


def of_two(parallel: str, rows: int, heads: HeadsConfig, name: str, *places: Path) -> tuple[PretrainRecipe, ...]:
    """A recipe for one process and for two, with an optimizer; some rows carry no loss in their prompts."""
    design, data, folder = places
    rate = 1e-3 if name == "muon" else TRAIN["learning_rate"]
    more = {"answers_only": True, "batch_tokens": rows * 32, "optimizer": name, "learning_rate": rate}
    return tuple(recipe(design, data, folder / kind, heads, parallel=kind, **more) for kind in ("none", parallel))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_two_processes_are_one(name: str, design: Path, data: Path, tmp_path: Path) -> None:
    """Three rows cannot be shared evenly."""
    alone, two = of_two("ddp", 3, VARIANTS[0], name, design, data, tmp_path)
    assert_alike(together(two), together(alone), two.out, alone.out)


@pytest.mark.parametrize(("heads", "name"), [*((heads, "muon") for heads in VARIANTS), (VARIANTS[0], "adamw")])
def test_two_processes_with_shards_are_one(
    heads: HeadsConfig, name: str, design: Path, data: Path, tmp_path: Path
) -> None:
    alone, two = of_two("fsdp", 4, heads, name, design, data, tmp_path)
    assert_alike(together(two), together(alone), two.out, alone.out)


def test_torchs_own_muon_takes_shards(design: Path, data: Path, tmp_path: Path) -> None:
    """In bfloat16 where the processor has it, saved in it too: the whole model must be cast where it lies.

    Each of its products gathers the shards anew, which takes time: four steps.
    """
    alone, two = of_two("fsdp", 4, VARIANTS[0], "muon", design, data, tmp_path)
    alone = replace(alone, train=replace(alone.train, steps=4))
    half = replace(two, train=replace(two.train, steps=4, save_dtype="bfloat16"))
    assert_same_losses(together(half, exact=False), together(alone, exact=False), within=1e-3, steps=4)
    assert {tensor.dtype for tensor in weights(half.out).values()} == {torch.bfloat16}


def test_a_run_moves_between_shards_and_whole_weights(design: Path, data: Path, tmp_path: Path) -> None:
    more = {"batch_tokens": 4 * 32, "optimizer": "muon", "learning_rate": 1e-3}
    alone, moving = (recipe(design, data, tmp_path / name, VARIANTS[0], **more) for name in ("alone", "moving"))
    for parallel, last in (("fsdp", 3), ("none", 6), ("ddp", 9)):
        together(replace(moving, train=replace(moving.train, parallel=parallel)), last)
    told = together(replace(moving, train=replace(moving.train, parallel="fsdp")))
    assert_alike(told, together(alone), moving.out, alone.out)


def test_shards_want_as_many_rows_in_each_process(
    design: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foresay.training.pretrain.joined", lambda parallel: nullcontext(Ranks(0, 2)))
    with pytest.raises(ConfigError, match=r"makes 3 rows of 32 tokens for 2 processes, .* give a multiple of 64"):
        pretrain(recipe(design, data, tmp_path / "out", parallel="fsdp"))
    assert not list(tmp_path.iterdir())
