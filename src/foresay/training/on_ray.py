"""Training on a Ray cluster: the same `train`, in workers that Ray Train starts, joins and starts again.

train_on_ray(Recipe("my-base", ("chats.jsonl",), Path("/shared/out"), train=TrainConfig(parallel="fsdp")), workers=8)
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from foresay.foundation.errors import MissingPackage
from foresay.training.recipe import Recipe
from foresay.training.runs.adapter_run import TrainUpdate
from foresay.training.train import train

if TYPE_CHECKING:
    from ray.train import RunConfig


def no_watch(news: TrainUpdate) -> None:
    """Watch nothing."""


def train_on_ray(
    recipe: Recipe,
    workers: int,
    gpu: bool = False,
    watch: Callable[[TrainUpdate], None] = no_watch,
    run: "RunConfig | None" = None,
) -> Path:
    """`train(recipe)` in `workers` processes, each with a GPU of its own if `gpu`; the folder of the adapter.

    Every worker must reach the recipe's base, data and folders under the same paths. `watch` is called in the leading
    one. Workers that `run` lets Ray start again (`FailureConfig`) go on at the last checkpoint. Raises MissingPackage,
    and Ray's own error when training fails.
    """
    try:
        from ray.train import ScalingConfig  # noqa: PLC0415 (an extra)
        from ray.train.torch import TorchConfig, TorchTrainer, get_device  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackage("Training on Ray is run by Ray Train", "ray") from error

    def work() -> None:
        if gpu:
            torch.cuda.set_device(get_device())
        train(recipe, watch)

    trainer = TorchTrainer(
        work,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
        run_config=run,
    )
    trainer.fit()
    return recipe.out
