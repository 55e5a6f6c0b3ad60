"""A damaged artefact is refused in words: weights that are missing or cut, tensors and settings that do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from foresay.foundation.errors import ArtefactError, ForesayError
from foresay.model import MultiTokenModel
from foresay.models.config import DType
from tests.models.artefact.test_folder import LORA, edit_settings, load, model, saved
from tests.support.toys import LLAMA

__all__ = ["model", "saved"]


@pytest.mark.parametrize("name", [LORA, "foresay.safetensors"])
def test_missing_weights_are_refused(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ArtefactError, match=rf"{name} is missing or damaged .*; restore the folder or train again"):
        load(saved)


@pytest.mark.parametrize("left", [0, 5, 400, -1])
@pytest.mark.parametrize("name", [LORA, "foresay.safetensors"])
def test_truncated_weights_are_refused(saved: Path, name: str, left: int) -> None:
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[:left])
    with pytest.raises(ArtefactError, match=rf"{name} is missing or damaged .*; restore the folder or train again"):
        load(saved)


Change = Callable[[dict[str, Tensor], str], Any]


def drop(tensors: dict[str, Tensor], name: str) -> None:
    del tensors[name]


def add(tensors: dict[str, Tensor], name: str) -> None:
    tensors[f"{name}.more"] = torch.zeros(1)


def spoil(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name].view(-1)[-1] = torch.nan


def crop(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name][1:].clone()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "and its base disagree on 1 tensors, {name} first; give the right base"),
        (add, "and its base disagree on 1 tensors, {name}.more first"),
        (spoil, "{name} in .* holds NaN; restore the folder or train again"),
        (crop, r"{name} in .* has shape \(\d+.*\), not \(\d+.*\); restore the folder or train again"),
    ],
)
@pytest.mark.parametrize("file", [LORA, "foresay.safetensors"])
def test_damaged_tensors_are_refused(saved: Path, file: str, change: Change, message: str) -> None:
    tensors = load_file(saved / file)
    for name in (min(tensors), max(tensors)):
        damaged = {key: tensor.clone() for key, tensor in tensors.items()}
        change(damaged, name)
        save_file(damaged, saved / file)
        with pytest.raises(ArtefactError, match=message.format(name=name)):
            load(saved)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda said: said.update(moons=2), "unknown key 'moons'; it was written by a newer foresay, update yours"),
        (lambda said: said["mtp"].update(depth=2), "unknown key 'depth'; it was written by a newer foresay"),
        (lambda said: said.update(format=2), "has format 2, this foresay reads 1; update foresay"),
        (lambda said: said.pop("mtp"), "is damaged .*; restore the folder or train again"),
        (lambda said: said.pop("format"), "is damaged"),
        (lambda said: said["mtp"].update(num_masks="4"), "is damaged"),
        (lambda said: said.update(fingerprints=None), "is damaged"),
        (lambda said: said["fingerprints"].update(moon="x"), "is damaged"),
    ],
)
def test_unknown_settings_are_refused(saved: Path, edit: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit_settings(saved, edit)
    with pytest.raises(ArtefactError, match=rf"foresay\.json .*{message}"):
        load(saved)


@pytest.mark.parametrize("content", ["", "{", "[]", '"a"', '{"format": 1}'])
def test_broken_settings_are_refused(saved: Path, content: str) -> None:
    (saved / "foresay.json").write_text(content)
    with pytest.raises(ArtefactError, match=r"foresay\.json is damaged .*; restore the folder or train again"):
        load(saved)


@pytest.mark.parametrize("edit", [{"family": "hats"}, {"mtp": {"sampler": "other"}}], ids=["family", "sampler"])
def test_settings_with_unknown_values_are_refused(saved: Path, edit: dict[str, Any]) -> None:
    edit_settings(saved, lambda said: said.update(edit))
    with pytest.raises(ForesayError, match=r"family|sampler"):
        load(saved)


def test_settings_that_are_no_text_are_refused(saved: Path) -> None:
    (saved / "foresay.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ArtefactError, match=r"foresay\.json is damaged"):
        load(saved)


def test_settings_without_a_base_are_refused(saved: Path) -> None:
    edit_settings(saved, lambda said: said.update(base=None))
    with pytest.raises(ArtefactError, match=r"foresay\.json"):
        MultiTokenModel.from_pretrained(saved)


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArtefactError, match=r"has no foresay\.json, so it is|there is no folder"):
            load(folder)


def test_a_base_without_a_name_gets_none() -> None:
    assert MultiTokenModel.from_base(LLAMA.model()).base_name == ""


@pytest.mark.parametrize(("value", "dtype"), [(torch.nan, "float32"), (torch.inf, "float32"), (1e30, "float16")])
def test_weights_that_could_not_be_loaded_are_not_saved(
    value: float, dtype: DType, model: MultiTokenModel, tmp_path: Path
) -> None:
    weights = next(model.added.parameters())
    before = weights.detach().clone()
    with torch.no_grad():
        weights.view(-1)[-1] = value
    try:
        with pytest.raises(
            ArtefactError, match=rf"1 tensors of the model are no numbers in {dtype}, .* so it is not saved"
        ):
            model.save_pretrained(tmp_path / "out", dtype)
    finally:
        weights.data.copy_(before)
    assert list(tmp_path.iterdir()) == []
