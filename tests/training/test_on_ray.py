"""Training under Ray Train: the losses and weights of one process."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from foresay.foundation.errors import MissingPackage
from foresay.training.config import Parallel
from foresay.training.on_ray import train_on_ray
from foresay.training.runs.adapter_run import TrainUpdate
from tests.training.loop.test_checkpoint import base, data
from tests.training.loop.test_distributed import alone, assert_like, stopping_recipe

__all__ = ["alone", "base", "data"]


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A small cluster on this machine."""
    pytest.importorskip("ray.train", reason="Ray is an extra; pip install 'foresay[ray]'")
    import ray  # noqa: PLC0415 (an extra)

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    small = {"num_cpus": 3, "object_store_memory": 200 << 20, "include_dashboard": False, "log_to_driver": False}
    ray.init(**small, _node_ip_address="127.0.0.1")
    yield ray
    ray.shutdown()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_workers_are_one_process(
    ray: Any, parallel: Parallel, base: Path, data: Path, alone: Any, tmp_path: Path
) -> None:
    def log(news: TrainUpdate) -> None:
        with (tmp_path / "log").open("a") as file:
            said = news.progress
            file.write(json.dumps([said.step, asdict(said.losses), said.gradient_norm]) + "\n")

    recipe = stopping_recipe(base, data, tmp_path / "out", parallel)
    settings = ray.train.RunConfig(storage_path=str(tmp_path / "ray"))
    assert train_on_ray(recipe, 2, watch=log, run=settings) == tmp_path / "out"
    assert_like([json.loads(line) for line in (tmp_path / "log").read_text().splitlines()], tmp_path, alone)


def test_workers_that_fail_go_on_where_they_were(ray: Any, base: Path, data: Path, alone: Any, tmp_path: Path) -> None:
    """Ray starts them again, and the checkpoint says where."""

    def log(news: TrainUpdate) -> None:
        said = news.progress
        if said.step == 5 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            os._exit(1)
        with (tmp_path / "log").open("a") as file:
            file.write(json.dumps([said.step, asdict(said.losses), said.gradient_norm]) + "\n")

    recipe = stopping_recipe(base, data, tmp_path / "out", "ddp")
    settings = ray.train.RunConfig(
        storage_path=str(tmp_path / "ray"), failure_config=ray.train.FailureConfig(max_failures=1)
    )
    train_on_ray(recipe, 2, watch=log, run=settings)
    assert (tmp_path / "failed").exists()
    assert_like([json.loads(line) for line in (tmp_path / "log").read_text().splitlines()], tmp_path, alone)


def test_ray_that_is_not_installed(base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.train", None)
    recipe = replace(stopping_recipe(base, data, tmp_path / "out", "ddp"), overwrite=True)
    with pytest.raises(MissingPackage, match=r"is run by Ray Train, which is not installed here; .*'foresay\[ray\]'"):
        train_on_ray(recipe, 2)
