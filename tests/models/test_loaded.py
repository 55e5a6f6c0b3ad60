"""A model that is open, copied and pickled."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch

from foresay.model import MultiTokenModel
from foresay.models.config import Family, HeadsConfig, MTPConfig


def answers(model: MultiTokenModel) -> list[tuple[int, ...]]:
    settings = {"max_new_tokens": 12, "ignore_stop": True}
    return [
        tuple(model.answer("Tell me", layout=layout, **settings).tokens) for layout in ("plain", "linear", "planned")
    ]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("config", [None, MTPConfig(num_masks=2, rank=4, sampler="paper"), HeadsConfig(heads=3)])
def test_a_copy_is_a_model_of_its_own(
    config: Family | None, copied: Callable[[MultiTokenModel], MultiTokenModel]
) -> None:
    model = MultiTokenModel.from_base("nano", config) if config else MultiTokenModel.from_pretrained("nano")
    said = answers(model)
    twin = copied(model)
    assert (twin.config, twin.base_name, twin.acceptance) == (model.config, model.base_name, model.acceptance)
    assert twin.fingerprints() == model.fingerprints()
    held = model.added.state_dict()
    assert all(torch.equal(tensor, held[name]) for name, tensor in twin.added.state_dict().items())
    for tensor in (*twin.base.model.parameters(), *twin.added.parameters()):
        tensor.data.zero_()
    assert answers(model) == said, "they share no weight"
    assert answers(copied(model)) == said
