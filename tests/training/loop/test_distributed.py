"""Processes that train together: the same losses and weights at any number of them, through checkpoints too."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.distributed.tensor import DTensor

from foresay.foundation.errors import ArtefactError, ConfigError
from foresay.models.config import Family, HeadsConfig
from foresay.models.heads.model import HeadsModel
from foresay.training.config import Parallel, TrainConfig
from foresay.training.loop.checkpoint import Checkpoints
from foresay.training.loop.distributed import Ranks, card_of, joined
from foresay.training.loop.fsdp import shard
from foresay.training.loop.optimizers import optimizers
from foresay.training.loop.progress import Progress
from foresay.training.objectives.batches import Batch, share
from foresay.training.recipe import Recipe
from foresay.training.runs.adapter_run import TrainUpdate
from foresay.training.train import train
from tests.support.processes import start, start_together
from tests.support.toys import LLAMA, VOCABULARY
from tests.training.loop.test_checkpoint import MTP, base, data, recipe

__all__ = ["base", "data"]

STEPS = 6


def stopping_recipe(base: Path, data: Path, out: Path, parallel: Parallel, family: Family = MTP) -> Recipe:
    """Sequences that two processes cannot share evenly, and a checkpoint after every second step."""
    more = {"steps": STEPS, "sequences": 3, "save_every": 2, "curriculum_steps": 0}
    more |= {"chunk_anchors": 2} if family is MTP else {"anchors": TrainConfig().anchors}
    return replace(recipe(base, data, out, parallel=parallel, **more), mtp=family)


def train_logged(folder: Path, base: Path, data: Path, parallel: Parallel, last: int, family: Family) -> None:
    """What each process does: train, and leave at step `last` of 6 if that is not the end."""

    def watch(news: TrainUpdate) -> None:
        with (folder / "log").open("a") as file:
            said = news.progress
            file.write(json.dumps([said.step, asdict(said.losses), said.gradient_norm]) + "\n")

    def leave(progress: Progress) -> bool:
        if last < STEPS and progress.step == last:
            os._exit(0)
        return False

    train(stopping_recipe(base, data, folder / "out", parallel, family), watch, stop=leave)


def together(
    folder: Path, base: Path, data: Path, parallel: Parallel, last: int = STEPS, family: Family = MTP
) -> list[Any]:
    """Train in one process (`none`) or two, up to step `last` of 6; what was logged so far."""
    arguments = (train_logged, folder, base, data, parallel, last, family)
    processes = [start(*arguments)] if parallel == "none" else start_together(2, *arguments)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    return [json.loads(line) for line in (folder / "log").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in (folder / "out").glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def alone(
    base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Any], dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("alone")
    return together(folder, base, data, "none"), weights(folder)


def assert_like(told: list[Any], folder: Path, alone: tuple[list[Any], dict[str, torch.Tensor]]) -> None:
    """The same losses and norms step for step, and the same weights, as near as rounding allows."""
    assert [step for step, *_ in told] == [step for step, *_ in alone[0]]
    for (step, losses, norm), (_, expected, expected_norm) in zip(told, alone[0]):
        assert losses == pytest.approx(expected, rel=1e-5), f"step {step}"
        assert norm == pytest.approx(expected_norm, rel=1e-4), f"step {step}"
    for name, tensor in weights(folder).items():
        torch.testing.assert_close(tensor, alone[1][name], atol=2e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_are_one(
    parallel: Parallel, base: Path, data: Path, alone: tuple[list[Any], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    assert_like(together(tmp_path, base, data, parallel), tmp_path, alone)


@pytest.mark.parametrize("variant", ["parallel", "causal", "linear"])
def test_heads_go_on_a_sharded_base(
    variant: Literal["parallel", "causal", "linear"], base: Path, data: Path, tmp_path: Path
) -> None:
    family = HeadsConfig(heads=3, variant=variant)
    alone, sharded = tmp_path / "alone", tmp_path / "sharded"
    alone.mkdir()
    sharded.mkdir()
    expected = together(alone, base, data, "none", family=family), weights(alone)
    assert_like(together(sharded, base, data, "fsdp", family=family), sharded, expected)


def test_a_run_moves_from_two_to_one_to_two(
    base: Path, data: Path, alone: tuple[list[Any], dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    together(tmp_path, base, data, "fsdp", last=2)
    together(tmp_path, base, data, "none", last=4)
    told = together(tmp_path, base, data, "ddp")
    assert_like(told, tmp_path, alone)


def test_torchrun_starts_the_command(base: Path, data: Path, tmp_path: Path) -> None:
    source = str(Path(__file__).parents[3] / "src")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "foresay"]
    train = ["train", str(base), "--data", str(data), "--out", str(tmp_path / "out"), "--parallel", "fsdp", "--json"]
    small = ["--steps", "2", "--sequences", "2", "--num-masks", "2", "--rank", "2", "--heldout", "1"]
    env = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *train, *small], env=env, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert json.loads(done.stdout)["steps"] == 2, "one process speaks for all"
    assert (tmp_path / "out" / "foresay.json").exists()


def sharded_model() -> tuple[HeadsModel, list[nn.Module]]:
    """A model to be trained, and its layers, which are in shards."""
    model = HeadsModel.from_base(LLAMA.model(), HeadsConfig(heads=2)).requires_grad_(True)
    layers = [*model.base.decoder_layers(), *model.heads.layers]
    shard(model, layers)
    return model, layers


def run_in_shards(out: Path) -> None:
    """What is whole before a forward, after it and after its backward: the names of layers' parameters.

    Then a step, which on CUDA takes shards and whole tensors of a group together.
    """
    with joined("fsdp") as ranks:
        model, layers = sharded_model()
        whole = []

        def look() -> None:
            named = [found for layer in layers for found in layer.named_parameters()]
            whole.append([name for name, parameter in named if not isinstance(parameter, DTensor)])

        look()
        points, call = model.points(torch.arange(4)[None], cut=False)
        states = [points[-1].made, *(states for _, states in model.branches(points[0].made, call))]
        look()
        torch.stack(states).sum().backward()
        look()
        [adamw] = optimizers(model.parameters(), "adamw", 0.1, VOCABULARY)
        for group in adamw.param_groups:
            group["foreach"] = True
        adamw.step()
        if ranks.leads:
            out.write_text(json.dumps(whole))


def test_layers_are_whole_only_while_they_run(tmp_path: Path) -> None:
    for process in start_together(2, run_in_shards, tmp_path / "whole"):
        process.join()
    assert json.loads((tmp_path / "whole").read_text()) == [[], [], []]


def save_shards(folder: Path, apart: bool) -> None:
    """Two checkpoints, whose leading process is slow to clear their places; `apart`, each process has its own disk."""

    def slow(path: Path, **settings: Any) -> None:
        remove(path, **settings)
        time.sleep(0.5)

    remove, said = shutil.rmtree, "written"
    try:
        with joined("fsdp") as ranks:
            model, _ = sharded_model()
            adamw = optimizers(model.parameters(), "adamw", 0.1, VOCABULARY)
            if ranks.leads:
                shutil.rmtree = slow  # type: ignore[assignment]
            checkpoints = Checkpoints(folder / str(ranks.rank) if apart else folder / "run", {})
            for step in (1, 2):
                checkpoints.save(Progress(step), model, adamw, ranks.leads)
    except ArtefactError as error:
        said = str(error)
    (folder / f"said-{os.environ['RANK']}").write_text(said)


@pytest.mark.parametrize("apart", [False, True])
def test_checkpoints_of_shards_want_one_disk(apart: bool, tmp_path: Path) -> None:
    for process in start_together(2, save_shards, tmp_path, apart):
        process.join()
    leading = (tmp_path / "said-0").read_text()
    if apart:
        assert "__1_0.distcp of the checkpoint" in leading
        assert "give --out on a disk that all processes share" in leading
        return
    assert leading == "written"
    newest = Checkpoints(tmp_path / "run", {}).newest()
    assert newest is not None
    (newest / "__1_0.distcp").unlink()
    model = HeadsModel.from_base(LLAMA.model(), HeadsConfig(heads=2)).requires_grad_(True)
    adamw = optimizers(model.parameters(), "adamw", 0.1, VOCABULARY)
    with pytest.raises(ArtefactError, match="checkpoint-00000002 cannot be read; every process needs the folder"):
        Checkpoints(tmp_path / "run", {}).load(newest, model, adamw)


def leave_when_written(folder: Path) -> None:
    """The leading process writes late; the other says whether it left before that."""
    with joined("ddp") as ranks:
        if ranks.leads:
            time.sleep(1)
            (folder / "written").write_text("")
    if not ranks.leads:
        (folder / "left").write_text(str((folder / "written").exists()))


def test_nobody_leaves_before_the_leading_process_has_written(tmp_path: Path) -> None:
    for process in start_together(2, leave_when_written, tmp_path):
        process.join()
    assert (tmp_path / "left").read_text() == "True"


# The parts, in one process.

BATCH = Batch(
    torch.arange(15).view(3, 5), torch.ones(3, 5, dtype=torch.bool), torch.tensor([[0, 1], [2, 3], [-1, 1]]), masks=2
)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
def test_every_sequence_is_run_once(world: int) -> None:
    shares = [share(BATCH, Ranks(rank, world)) for rank in range(world)]
    assert len({len(share.ids[share.own]) for share in shares}) == 1, "every process takes part alike"
    ids, carries, anchors = (
        torch.cat([getattr(share, name)[share.own] for share in shares]) for name in ("ids", "carries", "anchors")
    )
    assert torch.equal(ids[:3], BATCH.ids)
    assert torch.equal(anchors[:3], BATCH.anchors)
    assert not carries[3:].any()
    assert (anchors[3:] == -1).all()
    assert all(share.masks == 2 for share in shares)


def test_processes_and_the_flag_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ConfigError, match="start with `torchrun --nproc-per-node N -m foresay"), joined("ddp"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="several processes were started and parallel is none"), joined("none"):
        pass


def test_more_processes_than_cards_are_refused() -> None:
    assert [card_of(rank, 2) for rank in (0, 1)] == [0, 1]
    with pytest.raises(ConfigError, match="3 or more processes were started on a machine with 2 CUDA cards"):
        card_of(2, 2)
