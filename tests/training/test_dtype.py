"""What `auto` means is decided before a run begins, so that the run is the same whoever goes on with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from foresay.models.artefact.fingerprint import Fingerprints, fingerprint
from foresay.models.artefact.folder import HERE, Settings, write_with_base
from foresay.models.base import load
from foresay.models.base.load import load_tokenizer
from foresay.models.config import HeadsConfig, LoadConfig
from foresay.models.heads.model import HeadsModel
from foresay.training.config import PretrainConfig, TrainConfig
from foresay.training.distillation.backend import Task
from foresay.training.distillation.local import LocalEngine
from foresay.training.pretrain import settled as settled_pretraining
from foresay.training.recipe import PretrainRecipe
from foresay.training.train import Recipe, identity, settled
from tests.support.toys import LLAMA

PROCESSORS = pytest.mark.parametrize(("native", "dtype"), [(False, "float32"), (True, "bfloat16")])


def recipe(**more: Any) -> Recipe:
    return Recipe("nano", (), Path("out"), **more)


@PROCESSORS
def test_a_run_is_what_auto_means_here(native: bool, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": native})
    named = recipe(train=TrainConfig(dtype=dtype))
    assert settled(recipe()) == settled(named) == named
    assert identity(settled(recipe()), Fingerprints("base"), {})["dtype"] == dtype
    assert settled(recipe(train=TrainConfig(dtype="float16"))).train.dtype == "float16"
    heads = HeadsConfig(heads=2)
    assert settled(recipe(mtp=heads)) == recipe(mtp=heads, train=TrainConfig(dtype="float32"))


@PROCESSORS
def test_answers_are_of_what_auto_means_here(native: bool, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": native})
    assert Task("nano").settled().identity()["dtype"] == dtype
    assert Task("nano").settled("cuda").dtype == "bfloat16", "as workers with a card would have it"
    assert Task("nano", dtype="float16").settled().dtype == "float16"


def test_the_file_of_a_repository_is_what_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GGUF file beside others: its dtype, not that of the repository, which may hold no other checkpoint."""
    asked: list[str] = []

    def own(name: str) -> str:
        asked.append(name)
        return "float32"

    monkeypatch.setattr(load, "own_dtype", own)
    monkeypatch.setattr(load, "base_folder", lambda name: str(tmp_path))
    settled(Recipe("some/repository", (), Path("out"), loading=LoadConfig(gguf_file="model.gguf")))
    assert asked == ["some/repository/model.gguf"]


def test_answers_of_a_whole_model_are_of_its_own_checkpoint(tmp_path: Path) -> None:
    """A model with heads brings its base along, and names it `.`."""
    model = HeadsModel.from_base(LLAMA.model(num_hidden_layers=3, vocab_size=4096), HeadsConfig(heads=2))
    tokenizer = load_tokenizer("nano")
    made = Settings(mtp=model.config, base=HERE, fingerprints=fingerprint(model.model, tokenizer), family="heads")
    (tmp_path / "heads").mkdir()
    write_with_base(tmp_path / "heads", model, tokenizer, made, torch.bfloat16)
    task = Task(str(tmp_path / "heads"))
    assert (task.settled().dtype, task.settled("cuda").dtype) == ("float32", "bfloat16")
    assert LocalEngine.open(task).identity()["dtype"] == "float32"


@PROCESSORS
@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_products_of_pretraining_are_the_configs(
    key: str, native: bool, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": native})

    def chosen(said: dict[str, str], **more: Any) -> str:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({"model_type": "llama", **said}))
        asked = PretrainRecipe(str(path), (), tmp_path / "out", train=PretrainConfig(**more))
        return settled_pretraining(asked).train.dtype

    assert chosen({key: "bfloat16"}) == dtype
    assert chosen({key: "float16"}) == chosen({key: "float32"}) == chosen({}) == "float32"
    assert chosen({}, dtype="bfloat16") == "bfloat16"
    going_on = PretrainRecipe("nano", (), tmp_path / "out", train=PretrainConfig(continued=True))
    assert settled_pretraining(going_on).train.dtype == dtype
