"""Pretraining that goes on from a model: what is taken over, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from foresay.foundation.errors import ArtefactError, ConfigError
from foresay.models.base.load import NANO_FOLDER
from foresay.models.base.untrained import byte_tokenizer
from foresay.models.config import HeadsConfig
from foresay.models.heads.model import HeadsModel
from foresay.training.pretrain import pretrain
from foresay.training.warm_start import continued
from tests.support.pretraining import VARIANTS, data, design, held_in, recipe, run, same, trained

__all__ = ["data", "design", "trained"]


def states(model: HeadsModel) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def test_the_same_heads_go_on_as_they_are(trained: Path) -> None:
    held = held_in(trained)
    assert same(states(continued(str(trained), held.config, 0)), states(held))


def test_the_farthest_heads_are_dropped(trained: Path) -> None:
    held = held_in(trained)
    assert held.config.heads == 3
    for fewer in (1, 2):
        wanted = replace(held.config, heads=fewer)
        found = continued(str(trained), wanted, 0)
        assert found.config == wanted
        kept = {name: tensor for name, tensor in states(held).items() if name in states(found)}
        assert same(states(found), kept)
        assert len(found.heads.layers) == fewer - 1


def test_more_heads_begin_as_copies_of_the_first(trained: Path) -> None:
    held = held_in(trained)
    found = continued(str(trained), replace(held.config, heads=4), 0)
    assert same({name: tensor for name, tensor in states(found).items() if name in states(held)}, states(held))
    assert same(dict(found.heads.layers[2].state_dict()), dict(held.base.decoder_layers()[-1].state_dict()))


def test_an_ordinary_model_gets_heads() -> None:
    found = continued("nano", HeadsConfig(heads=3), 0)
    assert len(found.heads.layers) == 2
    assert same(dict(found.heads.layers[1].state_dict()), dict(found.base.decoder_layers()[-1].state_dict()))


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_training_goes_on_from_a_model(heads: int, trained: Path, data: Path, tmp_path: Path) -> None:
    """Nothing learnt anew: at a rate of next to nothing it stays what it was; stopped, it goes on exactly."""
    config = held_in(trained).config
    asked = recipe(trained, data, tmp_path / "out", replace(config, heads=heads), continued=True, learning_rate=1e-12)
    run(asked, stop=8)
    run(asked)
    held = states(held_in(trained))
    for name, tensor in states(held_in(tmp_path / "out")).items():
        torch.testing.assert_close(tensor, held[name], atol=1e-6, rtol=1e-5)


def test_a_run_that_goes_on_from_another_model_is_refused(
    trained: Path, design: Path, data: Path, tmp_path: Path
) -> None:
    config = held_in(trained).config
    run(recipe(design, data, tmp_path / "other", config, seed=5))
    asked = recipe(trained, data, tmp_path / "out", config, continued=True)
    run(asked, stop=4)
    with pytest.raises(ArtefactError, match=r"base was .* go on as it was begun"):
        run(replace(asked, config=str(tmp_path / "other")))


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("trained", HeadsConfig(heads=2, variant="linear"), "has 3 .* heads.*, and 2 linear ones were asked for"),
        ("nano-adapter", HeadsConfig(heads=2), "an adapter with masks, which has no whole model to go on from"),
    ],
)
def test_other_heads_are_refused(name: str, wanted: HeadsConfig, message: str, trained: Path) -> None:
    folder = trained if name == "trained" else NANO_FOLDER / "adapter"
    with pytest.raises(ConfigError, match=message):
        continued(str(folder), wanted, 0)


def test_another_vocabulary_is_no_place_to_go_on(trained: Path, data: Path, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    asked = recipe(trained, data, tmp_path / "out", VARIANTS[0], continued=True)
    with pytest.raises(ConfigError, match=r"has another vocabulary than the one beside .*; leave --tokenizer out"):
        pretrain(replace(asked, tokenizer=str(tmp_path / "tokenizer")))
