"""Quantised bases: training and decoding as ever, and lossless to the base as it was loaded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from foresay.cli import main as cli
from foresay.decoding.config import DecodeConfig, LayoutName
from foresay.decoding.generate import generate
from foresay.foundation.errors import ArtefactError, ConfigError, MissingPackage
from foresay.model import MultiTokenModel
from foresay.models.base import quantization as quantize
from foresay.models.base.load import load_base, load_tokenizer
from foresay.models.base.quantization import LIBRARY, quantization_of
from foresay.models.config import DType, LoadConfig, MTPConfig, Quantize
from foresay.training.config import LossConfig, TrainConfig
from foresay.training.recipe import Recipe
from foresay.training.train import train
from tests.support.checks import BATCHES, NEW, prompt_batches, require_distinct
from tests.support.layouts import FIXED
from tests.support.toys import LLAMA, QWEN3_MOE, Toy, with_adapter

ON_A_CPU = ["int8", "nf4"]


def need(how: Quantize) -> None:
    pytest.importorskip("accelerate", reason="quantised bases are loaded with accelerate; pip install accelerate")
    pytest.importorskip(LIBRARY[how], reason=f"{how} is made by {LIBRARY[how]}; pip install {LIBRARY[how]}")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toys that a base can be loaded from, wide enough for blocks of 64 weights, and data."""
    folder = tmp_path_factory.mktemp("bases")
    for toy in (LLAMA, QWEN3_MOE, replace(LLAMA, name="stranger", seed=9)):
        toy.model(hidden_size=64, intermediate_size=64, head_dim=16, vocab_size=512).save_pretrained(folder / toy.name)
        load_tokenizer("nano").save_pretrained(folder / toy.name)
    rows = [{"prompt": f"{n} and {n}?", "response": f"that is {n + n}"} for n in range(6)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def quantized(base: Path, how: Quantize, dtype: DType = "float32") -> Any:
    return load_base(str(base), dtype, LoadConfig(quantize=how))


@pytest.mark.parametrize("layout", FIXED)
@pytest.mark.parametrize("how", ON_A_CPU)
@pytest.mark.parametrize("toy", [LLAMA, QWEN3_MOE], ids=lambda toy: toy.name)
def test_output_is_that_of_the_quantised_base(bases: Path, toy: Toy, how: Quantize, layout: LayoutName) -> None:
    need(how)
    model, untouched = quantized(bases / toy.name, how), quantized(bases / toy.name, how)
    assert quantization_of(model.config) == how
    mtp, done = with_adapter(model, masks=3), []
    for batch in prompt_batches(BATCHES):
        said = generate(mtp, batch, DecodeConfig(layout=layout, max_new_tokens=NEW))
        for prompt, generation in zip(batch, said):
            ids = torch.tensor([prompt])
            own = untouched.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, pad_token_id=0
            )
            assert generation.tokens == own[0, len(prompt) :].tolist()
        done += said
    require_distinct(done, how)


@pytest.mark.parametrize("how", ON_A_CPU)
def test_quantising_changes_the_base(bases: Path, how: Quantize) -> None:
    """Else nothing above was shown. Embeddings and head stay."""
    need(how)
    ids = torch.arange(1, 9)[None]
    model, plain = quantized(bases / "llama", how), AutoModelForCausalLM.from_pretrained(bases / "llama")
    with torch.no_grad():
        apart = (model(ids).logits - plain(ids).logits).norm() / plain(ids).logits.norm()
    assert 1e-3 < apart < 0.5
    assert torch.equal(model.lm_head.weight, plain.lm_head.weight)


def trained_on(bases: Path, out: Path, how: Quantize, dtype: DType = "float32") -> MultiTokenModel:
    recipe = Recipe(
        str(bases / "llama"),
        (bases / "data.jsonl",),
        out,
        MTPConfig(num_masks=2, rank=2),
        LossConfig(),
        TrainConfig(steps=3, sequences=2, warmup_steps=0, heldout=1, learning_rate=0.02, dtype=dtype),
        loading=LoadConfig(quantize=how),
    )
    return train(recipe, lambda news: None).model


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("how", ON_A_CPU)
def test_it_trains_and_comes_back_as_it_was_trained(
    bases: Path, tmp_path: Path, how: Quantize, dtype: DType, caplog: pytest.LogCaptureFixture
) -> None:
    need(how)
    trained = trained_on(bases, tmp_path / "out", how, dtype)
    assert all(pair.up.abs().max() > 0 for pair in trained.mask_model.adapter.pairs), (
        "gradients go through every linear"
    )
    trained.detach_hooks()
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        after, before = trained.base.model(ids).logits, quantized(bases / "llama", how, dtype)(ids).logits
    assert torch.equal(after, before), "the base stays frozen"
    said = json.loads((tmp_path / "out" / "foresay.json").read_text())
    assert (said["quantization"], said["fingerprints"]["base"]) == (how, None)
    loaded = MultiTokenModel.from_pretrained(tmp_path / "out", dtype=dtype)
    assert quantization_of(loaded.base.model.config) == how
    assert not caplog.records
    prompts = prompt_batches(BATCHES)[1]
    config = DecodeConfig(layout="quadratic", max_new_tokens=8)
    assert loaded.decode(prompts, config) == trained.decode(prompts, config)


def test_another_quantisation_is_warned_of(bases: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Drafts may be worse, but what is said is the base's as it was loaded; another base is refused all the same."""
    need("int8")
    trained_on(bases, tmp_path / "int8", "int8")
    plain = MultiTokenModel.from_pretrained(tmp_path / "int8", loading=LoadConfig(quantize="none"))
    assert "was trained on a base that is quantised to int8, and this one is not quantised: fewer drafts" in caplog.text
    assert quantization_of(plain.base.model.config) == ""
    trained_on(bases, tmp_path / "plain", "none")
    caplog.clear()
    MultiTokenModel.from_pretrained(tmp_path / "plain", loading=LoadConfig(quantize="int8"))
    assert "a base that is not quantised, and this one is quantised to int8" in caplog.text
    with pytest.raises(ArtefactError, match=r"with embeddings \w{16}, and .* has \w{16}"):
        MultiTokenModel.from_pretrained(tmp_path / "int8", str(bases / "stranger"))


def test_a_checkpoint_that_comes_quantised(bases: Path, tmp_path: Path) -> None:
    need("nf4")
    quantized(bases / "llama", "nf4").save_pretrained(tmp_path / "nf4")
    load_tokenizer("nano").save_pretrained(tmp_path / "nf4")
    model = MultiTokenModel.from_base(str(tmp_path / "nf4"), MTPConfig(rank=2))
    assert quantization_of(model.base.model.config) == "nf4"
    with pytest.raises(ConfigError, match="comes quantised to nf4 and --quantize int8 was given; leave it out"):
        MultiTokenModel.from_base(str(tmp_path / "nf4"), loading=LoadConfig(quantize="int8"))


# What cannot be, without any of the packages.


def test_int4_wants_a_gpu(bases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match="int4 runs in bfloat16 on a CUDA GPU, and this is float32 on cpu; give int8"):
        quantized(bases / "llama", "int4")


@pytest.mark.parametrize("how", LIBRARY)
def test_a_missing_package_is_named(bases: Path, how: Quantize, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(
        MissingPackage, match=rf"--quantize {how} needs {LIBRARY[how]} .*pip install 'foresay\[quantize\]'"
    ):
        quantized(bases / "llama", how)


def test_a_device_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "nano", "hello", "--device", "gpu"]) == 2
    assert "device is 'gpu', which cannot be had here" in " ".join(capsys.readouterr().err.split())
