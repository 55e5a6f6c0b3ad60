"""Models that come from the hub and go there, through huggingface_hub's own client and a stand-in of the hub."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from peft import PeftModel
from transformers import AutoModelForCausalLM

from foresay.foundation.errors import ArtefactError
from foresay.model import MultiTokenModel
from foresay.models.artefact.publish import publication, publish
from foresay.models.base.load import adapter_folder
from tests.support.hub import Hub
from tests.support.toys import LLAMA, with_adapter

REPO, BASE = "somebody/adapter", "somebody/base"
SAVED = Path(__file__).parents[2] / "support" / "saved"


@pytest.fixture
def model() -> MultiTokenModel:
    measured = {"tokens_per_step": {"math": 1.75}, "prompts": 9}
    told = {"settings": {"measured": measured, "train": {"eval_tokens": 64}, "data": [{"name": "/home/me/a.jsonl"}]}}
    return MultiTokenModel(with_adapter(LLAMA.model(), masks=3), None, BASE, told)


@pytest.fixture
def folder(model: MultiTokenModel, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def opened(name: str, **more: Any) -> MultiTokenModel:
    return MultiTokenModel.from_pretrained(name, LLAMA.model(), **more)


def test_what_is_published_loads_by_its_name(hub: Hub, model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    address = model.push_to_hub(REPO, licence="apache-2.0")
    assert address.startswith(f"{hub.address}/{REPO}/commit/")
    loaded = opened(REPO)
    ids = torch.arange(6)[None]
    assert torch.equal(loaded.generate(ids, max_new_tokens=8), model.generate(ids, max_new_tokens=8))  # type: ignore[arg-type]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(opened(REPO).generate(ids, max_new_tokens=8), loaded.generate(ids, max_new_tokens=8))  # type: ignore[arg-type]


def test_of_a_base_nothing_is_fetched(hub: Hub) -> None:
    hub.add(BASE, {"config.json": b"{}", "model.safetensors": b"large"})
    with pytest.raises(
        ArtefactError, match=r"has no foresay.json, so it is no foresay model; where it is a base, train"
    ):
        opened(BASE)
    assert not any("model.safetensors" in path for path in hub.asked)


def test_a_revision_is_taken(hub: Hub, folder: Path) -> None:
    publish(publication(folder, REPO))
    [first] = [commit for commit in hub.commits[REPO] if commit != "main"]
    hub.add(REPO, {"foresay.json": b"torn"})
    assert opened(REPO, revision=first).drafts == 3
    with pytest.raises(ArtefactError, match="damaged"):
        opened(REPO)


def test_the_card_says_what_was_measured(hub: Hub, folder: Path) -> None:
    (folder / "certificate.json").write_text(json.dumps({"sentence": "Lossless: 4 of 4 answers are identical."}))
    publish(publication(folder, REPO, licence="mit"))
    files = hub.commits[REPO]["main"]
    card = files["README.md"].decode()
    for line in ("base_model: somebody/base", "base_model_relation: adapter", "library_name: foresay", "license: mit"):
        assert line in card.splitlines()
    assert "| math | 1.75 |" in card
    assert "Checked with `foresay check`: Lossless: 4 of 4 answers are identical." in card
    assert f'MultiTokenModel.from_pretrained("{REPO}")' in card
    assert f"foresay serve {REPO}" in card
    assert b"/home/me" not in b"".join(files.values())
    assert not any("/adapter_config.json" not in name and "adapter_config" in name for name in files)


def test_a_base_that_is_a_folder_is_named_by_its_hub_id(hub: Hub, model: MultiTokenModel, tmp_path: Path) -> None:
    folder = tmp_path / "local"
    model.base_name = "/home/me/base"
    model.save_pretrained(folder)
    card = (folder / "README.md").read_text()
    assert "for a local base" in card
    assert "/home/me" not in card
    (folder / "certificate.json").write_text(
        json.dumps({"sentence": "Lossless.", "settings": {"base": "/home/me/base"}})
    )
    (folder / "notes.txt").write_text("not for others")
    with pytest.raises(ArtefactError, match=r"belongs to /home/me/base, which nobody else can load; give the hub id"):
        publication(folder, REPO)
    publish(publication(folder, REPO, base=BASE))
    files = hub.commits[REPO]["main"]
    assert b"/home/me" not in b"".join(files.values())
    assert json.loads(files["foresay.json"])["base"] == BASE
    assert json.loads(files["lora/adapter_config.json"])["base_model_name_or_path"] == BASE
    assert "notes.txt" not in files


def test_a_users_lora_that_is_a_folder_is_refused(model: MultiTokenModel, tmp_path: Path) -> None:
    model.base_adapter = "/home/me/lora"
    model.save_pretrained(tmp_path / "local")
    with pytest.raises(ArtefactError, match=r"a base with the LoRA /home/me/lora, which nobody else can load"):
        publication(tmp_path / "local", REPO)


def test_a_model_that_brings_its_base_takes_no_other(folder: Path) -> None:
    settings = folder / "foresay.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base": "."}))
    assert publication(folder, REPO).sizes
    with pytest.raises(ArtefactError, match=r"brings its base, and it goes to the hub too; leave --base-id out"):
        publication(folder, REPO, base=BASE)


def test_a_folder_from_before_goes_there_in_todays_layout() -> None:
    names = publication(SAVED / "adapter", REPO, base=BASE).sizes.keys()
    assert {"lora/adapter_config.json", "lora/adapter_model.safetensors"} <= names
    assert not {"adapter_config.json", "adapter_model.safetensors"} & names


@pytest.mark.parametrize("repo", ["adapter", "some body/adapter", "a/b/c", "", "../adapter", "me/a--b", "me/a.git"])
def test_a_name_that_is_none_is_refused(folder: Path, repo: str) -> None:
    with pytest.raises(ArtefactError, match=r"is no name of a repository; give USER/NAME"):
        publication(folder, repo)


def test_what_cannot_be_had_is_one_sentence(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(publication(folder, REPO))
    with pytest.raises(ArtefactError, match="the hub has it, but not this revision"):
        opened(REPO, revision="v2")
    hub.private.add(REPO)
    with pytest.raises(ArtefactError, match="none of this name, or it is private"):
        opened(REPO)
    hub.gated.add(REPO)
    with pytest.raises(ArtefactError, match="wants its terms accepted"):
        opened(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ArtefactError, match=r"HF_HUB_OFFLINE\) and its cache does not have it"):
        opened("nobody/nothing")
    with pytest.raises(ArtefactError, match=r"could not be written on the hub \(HF_HUB_OFFLINE switches the hub off\)"):
        publish(publication(folder, REPO))
    with pytest.raises(ArtefactError, match="revision v1 was asked for and nano is not on the hub"):
        adapter_folder("nano", "v1")


def test_transformers_generates_with_a_published_folder(folder: Path, tmp_path: Path) -> None:
    """`custom_generate` of transformers takes a folder as it takes a hub id; the one that is named in it is opened."""
    base = LLAMA.model()
    base.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    made = tmp_path / "published" / "custom_generate"
    made.mkdir(parents=True)
    code = publication(folder, REPO).files["custom_generate/generate.py"]
    assert isinstance(code, bytes)
    (made / "generate.py").write_bytes(code.replace(REPO.encode(), str(folder).encode()))
    ids = torch.arange(6)[None]
    said = base.generate(ids, max_new_tokens=8, custom_generate=str(made.parent), trust_remote_code=True)
    assert torch.equal(said, base.generate(ids, max_new_tokens=8, do_sample=False))


def test_nothing_takes_the_folder_for_a_peft_adapter(folder: Path) -> None:
    with pytest.raises(ValueError, match="adapter_config"):
        PeftModel.from_pretrained(LLAMA.model(), str(folder))
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(folder)
