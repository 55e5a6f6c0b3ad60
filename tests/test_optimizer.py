"""Which optimizer moves which weights, and how far."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from foresay.config import HeadsConfig, MTPConfig, OptimizerName, PretrainConfig, TrainConfig
from foresay.model import MultiTokenModel
from foresay.modelling.heads import HeadsModel
from foresay.training.heads import HeadsObjective
from foresay.training.masks import MaskObjective
from foresay.training.objective import Objective
from foresay.training.optimizer import optimizers
from foresay.training.retrofit import RetrofitObjective
from toys import LLAMA

VOCABULARY = 7


def weights() -> list[nn.Parameter]:
    """Embeddings, a map, a stack of maps, a vector."""
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(shape)) for shape in ((VOCABULARY, 4), (6, 4), (2, 4, 4), (4,))]


def test_muon_takes_maps_between_states() -> None:
    rows, maps, stack, vector = weights()
    adamw, muon = optimizers([rows, maps, stack, vector], "muon", weight_decay=0.3, vocabulary=VOCABULARY)
    assert isinstance(adamw, torch.optim.AdamW)
    assert isinstance(muon, torch.optim.Muon)
    assert [group["params"] for group in adamw.param_groups] == [[rows, stack], [vector]]
    assert [group["weight_decay"] for group in (*adamw.param_groups, *muon.param_groups)] == [0.3, 0.0, 0.3]
    assert muon.param_groups[0]["params"] == [maps]


def test_updates_of_both_are_of_one_size() -> None:
    """One learning rate serves both: Muon moves by about 0.2 of it, AdamW's usual size (arXiv 2502.16982, sec. 2.2)."""
    parameter = nn.Parameter(torch.randn(24, 16))
    [muon] = optimizers([parameter], "muon", weight_decay=0.0, vocabulary=VOCABULARY)
    muon.param_groups[0]["lr"] = 0.1
    before = parameter.detach().clone()
    parameter.grad = torch.randn(24, 16)
    muon.step()
    moved = (parameter.detach() - before).square().mean().sqrt().item()
    assert 0.01 < moved < 0.04


def masks(name: OptimizerName) -> Objective[object]:
    model = MultiTokenModel.from_base(LLAMA.model(), MTPConfig(num_masks=2, rank=2))
    return MaskObjective(model.masks, [], TrainConfig(optimizer=name))  # type: ignore[return-value]


def pretraining(name: OptimizerName) -> Objective[object]:
    model = HeadsModel.from_base(LLAMA.model(), HeadsConfig(heads=2)).requires_grad_(True)
    return HeadsObjective(model, torch.zeros(1, 8), PretrainConfig(optimizer=name))  # type: ignore[return-value]


def retrofit(name: OptimizerName) -> Objective[object]:
    model = HeadsModel.from_base(LLAMA.model(), HeadsConfig(heads=2))
    return RetrofitObjective(model, [], TrainConfig(optimizer=name))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("make", [masks, pretraining, retrofit])
def test_every_trained_weight_is_moved_once(
    make: Callable[[OptimizerName], Objective[object]], name: OptimizerName
) -> None:
    objective = make(name)
    made = objective.optimizers()
    assert len(made) == (2 if name == "muon" else 1)
    moved = [id(p) for optimizer in made for group in optimizer.param_groups for p in group["params"]]
    trained = [id(p) for p in objective.trained.parameters() if p.requires_grad]
    assert sorted(moved) == sorted(trained)
