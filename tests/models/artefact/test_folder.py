"""The artefact: what goes in comes out bit for bit, what does not belong is refused, what stood there survives."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from foresay.decoding.config import DecodeConfig
from foresay.decoding.generate import generate
from foresay.foundation.errors import ArtefactError
from foresay.model import MultiTokenModel
from foresay.models.artefact import folder as artefact
from foresay.models.artefact.fingerprint import fingerprint
from foresay.models.base.load import load_tokenizer
from foresay.models.base.model import Base
from foresay.models.config import MTPConfig
from foresay.models.masks.model import Adapter
from tests.support.toys import DEEPSEEK3, GPT2, LLAMA, TOYS, Toy, pristine, random_prompts, with_adapter

LORA = "lora/adapter_model.safetensors"
FILES = {"README.md", "lora/adapter_config.json", LORA, "foresay.json", "foresay.safetensors"}
PEFT_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    """A toy of which every adapter tensor is non-zero; nobody changes it."""
    return MultiTokenModel(with_adapter(LLAMA.model(), masks=4), None, "toy", {"made": "by hand"})


@pytest.fixture
def saved(model: MultiTokenModel, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def load(folder: Path, toy: Toy = LLAMA, **more: Any) -> MultiTokenModel:
    return MultiTokenModel.from_pretrained(folder, toy.model(), **more)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, dot files too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit_settings(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "foresay.json"
    settings = json.loads(path.read_text())
    edit(settings)
    path.write_text(json.dumps(settings))


# Round trip.


@pytest.mark.parametrize("sampler", ["paper", "residual", "none"])
@pytest.mark.parametrize("toy", [LLAMA, GPT2], ids=lambda toy: toy.name)
def test_what_is_saved_is_loaded_to_the_bit(toy: Toy, sampler: Any, tmp_path: Path) -> None:
    core = with_adapter(toy.model(), masks=3, sampler=sampler, train_masks=False)
    before = MultiTokenModel(core, None, "toy", {"steps": 7})
    before.save_pretrained(tmp_path / "saved")
    after = load(tmp_path / "saved", toy)
    assert after.config == core.config
    assert after.provenance == {"steps": 7}
    mine, theirs = core.adapter.state_dict(), after.mask_model.adapter.state_dict()
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.any(), f"{name} is all zero, so that losing it would not show"
        assert torch.equal(tensor, theirs[name]), name
        assert theirs[name].dtype == torch.float32
    config, prompts = DecodeConfig(layout="quadratic", max_new_tokens=24), random_prompts((5, 9))
    # Steps and not only tokens: what a lost weight changes is which drafts are made. Not `planned`, which measures.
    assert after.decode(prompts, config) == generate(core, prompts, config)


def test_the_folder_holds_what_the_card_says(saved: Path) -> None:
    assert contents(saved).keys() == FILES
    card = (saved / "README.md").read_text()
    assert "do not load it with plain PEFT to generate text" in card
    settings = json.loads((saved / "foresay.json").read_text())
    assert settings["mtp"] == {
        "num_masks": 4,
        "rank": 4,
        "alpha": 6,
        "lora_targets": ["all"],
        "sampler": "residual",
        "train_masks": True,
    }
    assert settings["provenance"] == {"made": "by hand"}
    assert (settings["family"], settings["format"], settings["base"]) == ("masks", 1, "toy")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_saved_in_half_precision(model: MultiTokenModel, tmp_path: Path, dtype: Any) -> None:
    model.save_pretrained(tmp_path / "half", dtype)
    for name in (LORA, "foresay.safetensors"):
        assert {tensor.dtype for tensor in load_file(tmp_path / "half" / name).values()} == {getattr(torch, dtype)}
    after = load(tmp_path / "half").mask_model.adapter.state_dict()
    for name, tensor in model.mask_model.adapter.state_dict().items():
        assert torch.equal(after[name], tensor.to(getattr(torch, dtype)).float()), name


def test_on_a_cpu_the_adapter_computes_in_float32_whatever_the_base_does(saved: Path) -> None:
    loaded = MultiTokenModel.from_pretrained(saved, LLAMA.model().to(torch.bfloat16))
    assert {parameter.dtype for parameter in loaded.mask_model.adapter.parameters()} == {torch.float32}
    ids = torch.arange(6)[None]
    assert loaded.generate(ids, max_new_tokens=5, layout="linear").shape == (1, 11)


def test_parameters_are_nan_until_they_are_drawn_or_loaded() -> None:
    for sampler in ("paper", "residual"):
        adapter = Adapter(Base(LLAMA.model()), MTPConfig(num_masks=2, rank=2, sampler=sampler))
        for name, parameter in adapter.named_parameters():
            assert parameter.isnan().all(), f"{name} has a value that nobody gave it"


# The LoRA half in PEFT.

TAKEN_FOR_EXPERTS = [DEEPSEEK3]
"""PEFT 0.21 takes the linears of this kind's dense MLP for those of its routed experts, which have the same names."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("toy", [toy for toy in TOYS if toy not in TAKEN_FOR_EXPERTS], ids=lambda toy: toy.name)
def test_peft_on_all_rows_is_the_gate_open_on_all_rows(toy: Toy, tmp_path: Path) -> None:
    core = with_adapter(toy.model())
    MultiTokenModel(core, None, "toy").save_pretrained(tmp_path / "saved")
    theirs = PeftModel.from_pretrained(toy.model(), str(tmp_path / "saved" / "lora")).eval()
    ids = torch.tensor(random_prompts((9, 9)))
    with torch.no_grad():
        with core.gate.open(*ids.shape, real=0):
            ours = core.model(input_ids=ids, use_cache=False, output_hidden_states=True)
        peft = theirs(input_ids=ids, use_cache=False, output_hidden_states=True)
        plain = pristine(toy)(input_ids=ids, use_cache=False)
    for mine, other in zip((*ours.hidden_states, ours.logits), (*peft.hidden_states, peft.logits), strict=True):
        assert apart(mine, other) <= PEFT_TOLERANCE
    assert apart(ours.logits, plain.logits) > 0.01, "LoRA changes nothing, so that nothing was compared"


@pytest.mark.filterwarnings("ignore")
def test_peft_leaves_a_namesake_outside_the_layers_alone(tmp_path: Path) -> None:
    def with_namesake() -> PreTrainedModel:
        model = LLAMA.model()
        model.side = torch.nn.ModuleDict({"q_proj": torch.nn.Linear(3, 3)})
        return model

    MultiTokenModel(with_adapter(with_namesake()), None, "toy").save_pretrained(tmp_path / "saved")
    theirs = PeftModel.from_pretrained(with_namesake(), str(tmp_path / "saved" / "lora"))
    adapted = {name.removesuffix(".lora_A") for name, _ in theirs.named_modules() if name.endswith(".lora_A")}
    assert adapted == {f"base_model.model.{name}" for name in Base(LLAMA.model()).linears().adapted}


def apart(one: Tensor, other: Tensor) -> float:
    """Largest distance over the largest magnitude."""
    return ((one - other).abs().max() / other.abs().max()).item()


# Whose adapter it is.


def test_other_weights_are_refused(saved: Path) -> None:
    other = LLAMA.model()
    with torch.no_grad():
        other.model.layers[1].mlp.down_proj.weight.mul_(1.1)
    message = r"the adapter in .*saved was trained on toy with base \w{16}, and .* has \w{16}; give the base it was"
    with pytest.raises(ArtefactError, match=message):
        MultiTokenModel.from_pretrained(saved, other)


def test_other_shapes_are_refused(saved: Path) -> None:
    with pytest.raises(ArtefactError, match="was trained on toy with base"):
        MultiTokenModel.from_pretrained(saved, LLAMA.model(num_hidden_layers=3))


def test_the_base_is_the_same_in_bfloat16() -> None:
    rounded = LLAMA.model().to(torch.bfloat16)
    assert fingerprint(rounded, None) == fingerprint(LLAMA.model(), None)


@pytest.fixture
def with_tokenizer(model: MultiTokenModel, tmp_path: Path) -> Path:
    """An artefact trained with a tokenizer that has a chat template."""
    spoken = MultiTokenModel(model.mask_model, load_tokenizer("nano"), "toy")
    spoken.save_pretrained(tmp_path / "spoken")
    return tmp_path / "spoken"


def more_words(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.add_tokens(["foresay"])


def other_template(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = tokenizer.chat_template.replace("user", "asker")


@pytest.mark.parametrize(("change", "what"), [(more_words, "tokenizer"), (other_template, "chat template")])
def test_other_tokenizer_is_refused(
    with_tokenizer: Path, change: Callable[[PreTrainedTokenizerBase], None], what: str
) -> None:
    tokenizer = load_tokenizer("nano")
    load(with_tokenizer, tokenizer=tokenizer)
    change(tokenizer)
    with pytest.raises(ArtefactError, match=rf"with {what} \w{{16}}, .*; give the {what} it was trained on, or train"):
        load(with_tokenizer, tokenizer=tokenizer)


def test_without_a_tokenizer_there_is_none_to_refuse(with_tokenizer: Path) -> None:
    assert load(with_tokenizer).tokenizer is None


# Where it is written.


def test_folder_with_something_in_it_is_refused(model: MultiTokenModel, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    message = "full exists and is not empty; give another folder or --overwrite"
    with pytest.raises(ArtefactError, match=message):
        model.save_pretrained(tmp_path / "full")
    assert contents(tmp_path) == {"full/thesis.txt": b"mine"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_file_in_place_of_a_folder_is_refused(model: MultiTokenModel, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtefactError, match="file is a file; give a folder for the artefact"):
        model.save_pretrained(tmp_path / "file", overwrite=overwrite)
    assert contents(tmp_path) == {"file": b"mine"}


def test_empty_and_missing_folders_are_filled(model: MultiTokenModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "not" / "yet"):
        model.save_pretrained(folder)
        load(folder)
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "not"}


def test_overwriting_replaces_everything(saved: Path) -> None:
    (saved / "checkpoint.txt").write_text("of the model before")
    other = MultiTokenModel(with_adapter(LLAMA.model(), masks=2), None, "toy")
    other.save_pretrained(saved, overwrite=True)
    assert contents(saved).keys() == FILES
    assert load(saved).config.num_masks == 2
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


FULL = OSError(28, "No space left on device")
FAILURES = [
    ("foresay.models.artefact.folder.save_file", 1),
    ("foresay.models.artefact.folder.save_file", 2),
    ("pathlib.Path.write_text", 1),
    ("pathlib.Path.write_text", 2),
    ("pathlib.Path.write_text", 3),
    ("pathlib.Path.chmod", 1),
    ("pathlib.Path.rename", 1),
]


def break_at(patch: pytest.MonkeyPatch, name: str, call: int, error: BaseException) -> None:
    """Let the `call`-th call of a function raise, after having written what a torn file would hold."""
    module, _, attribute = name.rpartition(".")
    owner = artefact if module == "foresay.models.artefact.folder" else Path
    real, calls = getattr(owner, attribute), [0]

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise error
        return real(*args, **kwargs)

    patch.setattr(owner, attribute, broken)


@pytest.mark.parametrize(("name", "call"), FAILURES)
@pytest.mark.parametrize(
    "error", [FULL, SafetensorError("No space left on device")], ids=["OSError", "SafetensorError"]
)
def test_failed_saving_leaves_the_old_artefact_whole(
    saved: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int, error: Exception
) -> None:
    before = contents(saved.parent)
    other = MultiTokenModel(with_adapter(LLAMA.model(), masks=2), None, "toy")
    with monkeypatch.context() as patch:
        break_at(patch, name, call, error)
        with pytest.raises(
            ArtefactError, match=r"saved could not be written \(.*No space left on device\); what stood"
        ):
            other.save_pretrained(saved, overwrite=True)
    assert contents(saved.parent) == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"], "a temporary folder was left behind"
    other.save_pretrained(saved, overwrite=True)
    assert load(saved).config.num_masks == 2


@pytest.mark.parametrize(("name", "call"), FAILURES)
def test_interrupted_saving_leaves_the_old_artefact_whole(
    saved: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int
) -> None:
    before = contents(saved.parent)
    other = MultiTokenModel(with_adapter(LLAMA.model(), masks=2), None, "toy")
    with monkeypatch.context() as patch:
        break_at(patch, name, call, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            other.save_pretrained(saved, overwrite=True)
    assert contents(saved.parent) == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"], "a temporary folder was left behind"


def test_failure_between_the_renames_puts_the_old_artefact_back(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(saved.parent)
    with monkeypatch.context() as patch:
        break_at(patch, "pathlib.Path.rename", 2, FULL)
        with pytest.raises(ArtefactError, match="No space left on device"):
            MultiTokenModel(with_adapter(LLAMA.model()), None, "toy").save_pretrained(saved, overwrite=True)
    assert contents(saved.parent) == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_interruption_between_the_renames_puts_the_old_artefact_back(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(saved.parent)
    with monkeypatch.context() as patch:
        break_at(patch, "pathlib.Path.rename", 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            MultiTokenModel(with_adapter(LLAMA.model()), None, "toy").save_pretrained(saved, overwrite=True)
    assert contents(saved.parent) == before


def test_failed_first_saving_leaves_nothing(
    model: MultiTokenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_at(monkeypatch, "foresay.models.artefact.folder.save_file", 2, FULL)
    with pytest.raises(ArtefactError, match="No space left on device"):
        model.save_pretrained(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_folder_is_followed_or_replaced_cleanly(model: MultiTokenModel, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    model.save_pretrained(tmp_path / "link")
    load(tmp_path / "link")
    assert {path.name for path in tmp_path.iterdir()} == {"target", "link"}


def test_a_copied_artefact_is_the_same(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "elsewhere")
    shutil.rmtree(saved)
    load(tmp_path / "elsewhere")
