"""Other engines' forms of a model: the served copy says what the base says, and holds the masks in rows of its own."""

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from foresay.cli.main import main
from foresay.foundation.errors import ArtefactError, ConfigError, ForesayError
from foresay.model import MultiTokenModel
from foresay.models.artefact import folder as artefact
from foresay.models.artefact.fingerprint import Fingerprints, fingerprint
from foresay.models.base.load import NANO_FOLDER
from foresay.models.config import MTPConfig
from foresay.models.masks.model import MaskModel
from foresay.serving.config import PluginConfig
from foresay.serving.vllm import manifest as served
from foresay.serving.vllm.export import export_vllm, export_vllm_draft_model
from foresay.serving.vllm.plugin import versions
from tests.support.toys import GPT2, LLAMA, TOYS, Toy, with_adapter

NANO = NANO_FOLDER / "adapter"
MASKS = 3
NAMED = {toy.name: toy for toy in TOYS}
"""Untied, tied, a head with a bias, scaled look-ups, linears in one."""
KINDS = [
    LLAMA,
    Toy("tied", "Llama", {"tie_word_embeddings": True}),
    NAMED["phi"],
    NAMED["gemma3"],
    NAMED["phi3"],
]


def exported(model: MultiTokenModel, out: Path, config: PluginConfig | None = None) -> Path:
    model.save_pretrained(out / "adapter")
    export_vllm(model, out / "adapter", out / "served", config or PluginConfig(), overwrite=False)
    return out / "served"


@pytest.mark.parametrize("toy", KINDS, ids=lambda toy: toy.name)
def test_the_copy_says_what_the_base_says(toy: Toy, tmp_path: Path) -> None:
    model = MultiTokenModel(with_adapter(toy.model(), masks=MASKS), None, "toy")
    before = {name: tensor.clone() for name, tensor in model.base.model.state_dict().items()}
    folder = exported(model, tmp_path)
    copy = AutoModelForCausalLM.from_pretrained(folder).eval()
    vocabulary, said = model.base.vocabulary, served.read(folder)
    assert copy.config.vocab_size == vocabulary + MASKS
    assert (said.first_mask, said.num_masks, said.rank) == (vocabulary, MASKS, 4)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        mine, theirs = model.base.model(ids).logits, copy(ids).logits
        masks = copy.get_input_embeddings()(torch.arange(vocabulary, vocabulary + MASKS))
    torch.testing.assert_close(theirs[..., :vocabulary], mine)
    torch.testing.assert_close(masks, model.mask_model.adapter.mask_embeddings.detach(), rtol=1e-6, atol=1e-6)
    assert model.base.model.config.vocab_size == vocabulary
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.base.model.state_dict().items())


def test_the_adapter_and_the_tokenizer_go_into_the_copy_as_they_are(tmp_path: Path) -> None:
    assert main(["export", "nano", "--to", "vllm", "--out", str(tmp_path / "served")]) == 0
    inside = tmp_path / "served" / served.ADAPTER
    assert {path.name: path.read_bytes() for path in inside.iterdir()} == {
        path.name: path.read_bytes() for path in NANO.iterdir()
    }
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "served")
    copy = AutoModelForCausalLM.from_pretrained(tmp_path / "served")
    wanted = artefact.read_settings(NANO).fingerprints
    assert replace(fingerprint(copy, tokenizer), base=wanted.base, embeddings=wanted.embeddings) == wanted
    assert copy.dtype == torch.bfloat16, "nano's own"
    assert not wanted.differing(Fingerprints(**served.read(tmp_path / "served").fingerprints))
    assert [path.name for path in tmp_path.iterdir()] == ["served"]


def test_the_command_prints_what_vllm_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "served"
    assert main(["export", "nano", "--to", "vllm", "--out", str(out), "--masks", "3"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words == served.command_arguments(served.engine_arguments(out))
    assert words[words.index("--model") + 1] == str(out)
    assert json.loads(words[words.index("--speculative-config") + 1])["num_speculative_tokens"] == 6
    assert words[words.index("--max-lora-rank") + 1] == "16"


def test_a_draft_model_is_the_base_and_its_adapter_in_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "draft"
    assert main(["export", "nano", "--to", "vllm-draft-model", "--out", str(out), "--masks", "3"]) == 0
    words = shlex.split(capsys.readouterr().out)
    assert words == served.command_arguments(served.engine_arguments(out))
    speculative = json.loads(words[words.index("--speculative-config") + 1])
    assert speculative == {
        "method": "draft_model",
        "model": str(out),
        "num_speculative_tokens": 4,
        "parallel_drafting": True,
    }
    assert json.loads(words[words.index("--hf-overrides") + 1]) == {"architectures": ["LlamaForCausalLM"]}
    said = json.loads((out / "config.json").read_text())
    assert said["architectures"] == ["ForesayLlamaForCausalLM"]
    assert said["foresay"]["rank"] == 16, "vLLM compiles anew where the adapter has another shape"
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert 0 < said["mask_token_id"] < len(tokenizer) == said["vocab_size"], "nano's 0 ends its texts"
    mine, theirs = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (NANO_FOLDER / "base", out))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items()), "the base, and nothing else"
    assert {path.name for path in (out / served.ADAPTER).iterdir()} == {path.name for path in NANO.iterdir()}
    with pytest.raises(ConfigError, match="a draft model, of which only masks can be changed"):
        served.engine_arguments(out, lengths="all")


def test_a_base_that_was_not_tried_is_no_draft_model(tmp_path: Path) -> None:
    model = MultiTokenModel(with_adapter(NAMED["phi"].model(), masks=MASKS), None, "toy")
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ForesayError, match=r"PhiForCausalLM was not tried as a draft model .* export it --to vllm"):
        export_vllm_draft_model(model, tmp_path / "adapter", tmp_path / "draft", 0, overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_settings_can_be_changed_for_a_run(tmp_path: Path) -> None:
    model = MultiTokenModel(with_adapter(LLAMA.model(), masks=MASKS), None, "toy")
    folder = exported(model, tmp_path, PluginConfig(busy_requests=9))
    arguments = served.engine_arguments(folder, masks=2, lengths="all")
    assert arguments["speculative_config"]["num_speculative_tokens"] == 4
    changed = served.plugin_config(served.read(folder), arguments["additional_config"][served.PLUGIN])
    assert changed == PluginConfig(masks=2, lengths="all", busy_requests=9)
    with pytest.raises(ConfigError, match=r"4 masks were asked for .* trained with 3"):
        served.engine_arguments(folder, masks=4)
    with pytest.raises(ConfigError, match=r"unknown foresay\.mask; known are masks"):
        served.engine_arguments(folder, mask=2)


def test_what_vllm_cannot_take_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    quantised = LLAMA.model()
    quantised.config.quantization_config = {"quant_method": "by hand"}
    wide = MaskModel.from_base(LLAMA.model(), MTPConfig(num_masks=1, rank=600))
    strange = with_adapter(LLAMA.model(), masks=1)
    strange.model.set_input_embeddings(type("Strange", (nn.Embedding,), {})(96, 32))
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    carrying = peft.get_peft_model(LLAMA.model(), lora).get_base_model()
    cases = {
        "carries a user's own LoRA": with_adapter(carrying, masks=1),
        "transposed": with_adapter(GPT2.model(), masks=1),
        "is quantised": with_adapter(quantised, masks=1),
        "rank 600 and vLLM's LoRA takes at most 512": wide,
        "looks tokens up in a way that is not known": MaskModel.from_base(strange.model, MTPConfig(num_masks=1)),
    }
    for number, (reason, core) in enumerate(cases.items()):
        place = tmp_path / str(number)
        with pytest.raises(ForesayError, match=reason):
            exported(MultiTokenModel(core, None, "toy"), place)
        assert [path.name for path in place.iterdir()] == ["adapter"]


def test_a_folder_that_is_no_served_copy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"no served copy; make one: foresay export"):
        served.read(NANO)
    for text, reason in {"{": "damaged", '{"format": 2}': "reads 1", '{"format": 1, "plugin": {}}': "damaged"}.items():
        (tmp_path / "vllm.json").write_text(text)
        with pytest.raises(ArtefactError, match=reason):
            served.read(tmp_path)


def test_peft_reads_the_lora_half(tmp_path: Path) -> None:
    assert main(["export", "nano", "--to", "peft", "--out", str(tmp_path / "lora")]) == 0
    base = AutoModelForCausalLM.from_pretrained(NANO_FOLDER / "base")
    names = {path.name for path in (tmp_path / "lora").iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert "Not for generating text" in (tmp_path / "lora" / "README.md").read_text()
    lora = PeftModel.from_pretrained(base, tmp_path / "lora")
    assert any("lora_B" in name and tensor.any() for name, tensor in lora.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--to", "vllm", "--masks", "9"], "9 masks were asked for"),
        (["--to", "peft", "--masks", "2"], "are for vLLM"),
        (["--to", "vllm-draft-model", "--masks", "9"], "9 masks were asked for"),
        (["--to", "vllm-draft-model", "--lengths", "all"], "not of a draft model; leave them out"),
        (["--to", "vllm", "--busy-requests", "-1"], "give 0 or more"),
        (["--to", "vllm", "--base", "nowhere"], "no base 'nowhere'"),
        (["--to", "tgi"], "invalid choice"),
    ],
)
def test_bad_use_is_refused_in_words(
    arguments: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["export", "nano", "--out", str(tmp_path / "out"), *arguments])
    except SystemExit as error:
        status = int(error.code or 0)
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert status == 2
    assert reason in said
    assert not list(tmp_path.iterdir())


def test_what_stood_there_stays_without_overwrite(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    assert main(["export", "nano", "--to", "peft", "--out", str(tmp_path)]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert main(["export", "nano", "--to", "peft", "--out", str(tmp_path), "--overwrite"]) == 0
    assert not (tmp_path / "mine").exists()


def test_only_a_tested_vllm_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(versions.AT_OWN_RISK, raising=False)
    monkeypatch.setattr(versions, "found", lambda: "9.9.9")
    with pytest.raises(
        ConfigError, match=r"vLLM 9\.9\.9 is installed .* tested with 0\.32\.0; .*FORESAY_UNTESTED_VLLM"
    ):
        versions.check_version()
    monkeypatch.setenv(versions.AT_OWN_RISK, "1")
    versions.check_version()
    monkeypatch.setattr(versions, "found", lambda: None)
    with pytest.raises(ConfigError, match="not installed"):
        versions.check_version()


def test_a_torn_adapter_is_refused(tmp_path: Path) -> None:
    shutil.copytree(NANO, tmp_path / "torn")
    (tmp_path / "torn" / "foresay.safetensors").unlink()
    assert main(["export", str(tmp_path / "torn"), "--to", "vllm", "--out", str(tmp_path / "served")]) == 2
    assert not (tmp_path / "served").exists()
