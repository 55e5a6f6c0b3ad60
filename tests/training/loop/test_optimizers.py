"""Which optimizer moves which weights, and how far."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from foresay.model import MultiTokenModel
from foresay.models.config import HeadsConfig, MTPConfig
from foresay.models.heads.model import HeadsModel
from foresay.training.config import OptimizerName, PretrainConfig, TrainConfig
from foresay.training.loop.objective import Objective
from foresay.training.loop.optimizers import Float32Muon, optimizers
from foresay.training.objectives.heads import HeadsObjective
from foresay.training.objectives.heads_on_frozen_base import RetrofitObjective
from foresay.training.objectives.masks import MaskObjective
from tests.support.toys import LLAMA

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


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (16, 16)])
def test_muon_in_float32_is_torchs_own(shape: tuple[int, int]) -> None:
    """As far as bfloat16 lets it be seen, over steps with momentum and decay."""
    torch.manual_seed(0)
    both = [nn.Parameter(torch.randn(shape)) for _ in range(2)]
    both[1].data.copy_(both[0])
    before = both[0].detach().clone()
    settings = {"lr": 0.1, "weight_decay": 0.3, "adjust_lr_fn": "match_rms_adamw"}
    made = [torch.optim.Muon([both[0]], **settings), Float32Muon([both[1]], **settings)]
    for _ in range(4):
        gradient = torch.randn(shape)
        for parameter, optimizer in zip(both, made):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (both[0] - before).norm()
    assert (both[1] - both[0]).norm() < 0.02 * moved
    assert made[0].state_dict()["state"].keys() == made[1].state_dict()["state"].keys()


@pytest.mark.parametrize("native", [True, False])
def test_muon_computes_in_what_the_processor_has(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foresay.training.loop.optimizers.multiplies_bfloat16", lambda device: native)
    [made] = optimizers([nn.Parameter(torch.randn(6, 4))], "muon", weight_decay=0.0, vocabulary=VOCABULARY)
    assert isinstance(made, Float32Muon) != native


def masks(name: OptimizerName) -> Objective[object]:
    model = MultiTokenModel.from_base(LLAMA.model(), MTPConfig(num_masks=2, rank=2))
    return MaskObjective(model.mask_model, [], TrainConfig(optimizer=name))  # type: ignore[return-value]


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
