"""On a GPU too: the gradients are the CPU's, an artefact comes back as it was, and a run that was stopped goes on."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foresay.data.prompts import Prompt
from foresay.decoding.config import DecodeConfig
from foresay.model import MultiTokenModel
from foresay.models.config import LoadConfig, MTPConfig
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.objectives.batches import Batch
from foresay.training.objectives.two_pass import two_pass
from foresay.training.train import Recipe, train
from tests.support.toys import LLAMA, with_adapter

MASKS, STEPS = 3, 9
APART = 1e-3
"""Of two runs on a device that adds in any order: distance over length. The control must be ten times as far."""


def gradients(device: str, losses: LossConfig) -> dict[str, torch.Tensor]:
    """Of one step on a toy, whose weights are the same everywhere."""
    model = with_adapter(LLAMA.model().to(device), masks=MASKS)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(96, (3, 17), generator=generator)
    carries = torch.ones(ids.shape, dtype=torch.bool)
    carries[:, -1] = False
    anchors = torch.tensor([[0, 4, 9, 15], [2, 3, 8, -1], [1, 7, 11, 14]])
    two_pass(model, Batch(*(tensor.to(device) for tensor in (ids, carries, anchors))), losses, 2)
    return {name: p.grad.cpu() for name, p in model.adapter.named_parameters() if p.grad is not None}


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Distance of all tensors together over their length."""
    assert one.keys() == other.keys()
    distance = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    return (distance / sum(float(tensor.double().square().sum()) for tensor in other.values())) ** 0.5


def test_gradients_are_those_of_the_cpu(device: str) -> None:
    losses = LossConfig(kl_weight=0.5)
    there, here = gradients(device, losses), gradients("cpu", losses)
    assert all(gradient.any() for gradient in here.values())
    for name in here:
        assert apart({name: there[name]}, {name: here[name]}) < 1e-4, name
    assert apart(gradients("cpu", LossConfig()), here) > 1e-2, "other losses give the same: nothing was shown"


def test_an_artefact_comes_back_as_it_was(
    nano: MultiTokenModel, prompts: Sequence[Prompt], loading: LoadConfig, tmp_path: Path
) -> None:
    nano.save_pretrained(tmp_path / "saved")
    again = MultiTokenModel.from_pretrained(tmp_path / "saved", dtype="float32", loading=loading)
    kept, own = dict(again.added.named_parameters()), dict(nano.added.named_parameters())
    assert kept.keys() == own.keys()
    assert all(torch.equal(kept[name], own[name]) for name in own)
    config = DecodeConfig(layout="quadratic", max_new_tokens=12)
    ids = [prompt.ids for prompt in prompts[:3]]
    assert again.decode(ids, config) == nano.decode(ids, config)


class StoppedError(Exception):
    """The run is stopped from inside."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    rows = [{"prompt": f"Count to {n}.", "response": " ".join(map(str, range(n + 2)))} for n in range(13)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def recipe(data: Path, out: Path, loading: LoadConfig, seed: int = 0) -> Recipe:
    train = TrainConfig(
        steps=STEPS, sequences=3, anchors=3, warmup_steps=2, max_length=48, heldout=0, save_every=2, tracker="none",
        learning_rate=1e-2, seed=seed,
    )  # fmt: skip
    return Recipe("nano", (data,), out, MTPConfig(num_masks=MASKS, rank=4), LossConfig(), train, loading=loading)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "foresay.safetensors") | load_file(out / "lora" / "adapter_model.safetensors")


def test_a_stopped_run_goes_on(data: Path, loading: LoadConfig, tmp_path: Path) -> None:
    train(recipe(data, tmp_path / "whole", loading), lambda news: None)
    train(recipe(data, tmp_path / "other", loading, seed=1), lambda news: None)

    def stop(news: object) -> None:
        if news.progress.step == 5:  # type: ignore[attr-defined]
            raise StoppedError

    stopped = recipe(data, tmp_path / "stopped", loading)
    with pytest.raises(StoppedError):
        train(stopped, stop)
    steps: list[int] = []
    train(stopped, lambda news: steps.append(news.progress.step))
    assert steps[0] == 5, "it begins after the last checkpoint"
    whole = weights(tmp_path / "whole")
    assert apart(weights(tmp_path / "stopped"), whole) < APART
    assert apart(weights(tmp_path / "other"), whole) > 10 * APART, "another seed gives the same: nothing was shown"
