"""Training that goes on from a model: what is taken over, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from foresay.foundation.errors import ArtefactError, ConfigError
from foresay.model import MultiTokenModel
from foresay.models.base.load import NANO_FOLDER, load_tokenizer
from foresay.models.base.untrained import byte_tokenizer
from foresay.models.config import Family, HeadsConfig, MTPConfig
from foresay.models.heads.model import HeadsModel
from foresay.training.config import TrainConfig
from foresay.training.pretrain import pretrain
from foresay.training.recipe import Recipe
from foresay.training.train import train
from foresay.training.warm_start import begin_from, continued
from tests.support.pretraining import VARIANTS, data, design, held_in, recipe, run, same, trained
from tests.support.toys import LLAMA
from tests.training.loop.test_checkpoint import stopped_at

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


MASKS = MTPConfig(num_masks=3, rank=4, lora_targets=("attention",), sampler="paper")
NOTHING: dict[str, Any] = {
    "steps": 2,
    "sequences": 2,
    "learning_rate": 1e-12,
    "warmup_steps": 1,
    "heldout": 1,
    "eval_tokens": 4,
    "max_length": 64,
    "tracker": "none",
}
"""Steps that learn next to nothing."""


def base(folder: Path, seed: int = LLAMA.seed, **settings: Any) -> str:
    """A base with nano's tokenizer; two of different seeds are as a base and its fine-tune."""
    replace(LLAMA, seed=seed).model(vocab_size=4096, **settings).save_pretrained(folder)
    load_tokenizer("nano").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter, none of whose weights is at its start."""
    folder = tmp_path_factory.mktemp("held")
    model = MultiTokenModel.from_base(base(folder / "base"), MASKS)
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.mask_model.adapter.parameters():
            weight.copy_(torch.randn(weight.shape, generator=drawn))
    model.save_pretrained(folder / "adapter")
    return folder


def adapter(folder: str | Path) -> dict[str, torch.Tensor]:
    return dict(MultiTokenModel.from_pretrained(folder).mask_model.adapter.state_dict())


def begun(held: Path, out: Path, mtp: Family = MASKS, base: str = "", **changes: Any) -> Recipe:
    rows = [{"prompt": f"Count to {n}.", "response": " ".join(map(str, range(n + 2)))} for n in range(6)]
    data = out.parent / "rows.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    name = base or str(held / "base")
    settings = TrainConfig(**NOTHING | ({"anchors": 4} if isinstance(mtp, MTPConfig) else {}) | changes)
    return Recipe(name, (data,), out, mtp, train=settings, init_from=str(held / "adapter"))


def test_an_adapter_goes_on_as_it_is(held: Path, tmp_path: Path) -> None:
    said = list[str]()
    done = train(begun(held, tmp_path / "out"), lambda news: None, told=said.append)
    found, was = adapter(tmp_path / "out"), adapter(held / "adapter")
    assert found.keys() == was.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, was[name], atol=1e-6, rtol=1e-5)
    assert f"begins with the adapter {held / 'adapter'}, of 3 drafts, trained on {held / 'base'}" in said
    assert done.model.provenance["settings"]["init_from"] == "adapter", "where it lies is this machine's own"


def test_more_masks_begin_as_copies_of_the_last_and_fewer_are_the_first(held: Path) -> None:
    was = adapter(held / "adapter")
    for wanted, chosen in ((5, [0, 1, 2, 2, 2]), (2, [0, 1])):
        model = MultiTokenModel.from_base(str(held / "base"), replace(MASKS, num_masks=wanted, train_masks=False))
        begin_from(str(held / "adapter"), model)
        expected = was | {"mask_embeddings": was["mask_embeddings"][chosen]}
        assert same(dict(model.mask_model.adapter.state_dict()), expected)
        drafted = model.answer("Count to 3.", max_new_tokens=8, layout="quadratic", ignore_stop=True)
        plain = model.answer("Count to 3.", max_new_tokens=8, layout="plain", ignore_stop=True)
        assert drafted.tokens == plain.tokens


def test_a_fine_tune_begins_with_the_adapter_of_its_base(held: Path, tmp_path: Path) -> None:
    tuned, said = base(tmp_path / "tuned", seed=LLAMA.seed + 1), list[str]()
    train(begun(held, tmp_path / "out", base=tuned), lambda news: None, told=said.append)
    assert any(line.endswith("though base and embeddings are not those it was trained on") for line in said)
    assert MultiTokenModel.from_pretrained(tmp_path / "out").base_name == tuned


def test_a_stopped_run_that_began_with_an_adapter_goes_on_exactly(held: Path, tmp_path: Path) -> None:
    learning = {"steps": 6, "learning_rate": 1e-2, "save_every": 1}
    train(begun(held, tmp_path / "whole", **learning), lambda news: None)
    asked = begun(held, tmp_path / "parts", **learning)
    stopped_at(3, asked)
    train(asked, lambda news: None)
    assert same(adapter(tmp_path / "parts"), adapter(tmp_path / "whole"))


@pytest.mark.parametrize("variant", ["parallel", "linear"])
def test_heads_on_a_frozen_base_begin_with_others(variant: Any, held: Path, tmp_path: Path) -> None:
    config = HeadsConfig(heads=2, variant=variant)
    first = replace(begun(held, tmp_path / "first", config, learning_rate=1e-2), init_from="")
    second = replace(begun(held, tmp_path / "second", config), init_from=str(tmp_path / "first"))
    was = train(first, lambda news: None).model.heads_model.heads.state_dict()
    fresh = MultiTokenModel.from_base(str(held / "base"), config).heads_model.heads.state_dict()
    assert not same(dict(was), dict(fresh))
    found = train(second, lambda news: None).model.heads_model.heads.state_dict()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, was[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("mtp", "message"),
    [
        (
            replace(MASKS, rank=8, sampler="residual"),
            r"\(rank 4 for 8, sampler 'paper' for 'residual'\)",
        ),
        (replace(MASKS, alpha=2.0), r"\(alpha 0\.0 for 2\.0\)"),
        (HeadsConfig(heads=2), r"\(masks and heads\); give its own, or leave --init-from out"),
    ],
)
def test_an_adapter_with_other_settings_is_no_start(mtp: Family, message: str, held: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        train(begun(held, tmp_path / "out", mtp), lambda news: None)
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_a_base_of_another_shape_is_no_start(held: Path, tmp_path: Path) -> None:
    wider = base(tmp_path / "wider", hidden_size=64)
    message = r"does not fit .*wider \(.* has shape \(4, 32\), not \(4, 64\)\); give one of a base with the same layers"
    with pytest.raises(ArtefactError, match=message):
        train(begun(held, tmp_path / "out", base=wider), lambda news: None)


def test_the_adapter_that_is_begun_with_is_not_replaced(held: Path, tmp_path: Path) -> None:
    asked = replace(begun(held, tmp_path / "out"), out=held / "adapter", overwrite=True)
    with pytest.raises(ArtefactError, match=r"is to be written, and .*adapter, which is read, lies there"):
        train(asked, lambda news: None)
