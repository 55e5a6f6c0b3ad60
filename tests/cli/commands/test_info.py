"""`foresay info` at the command line."""

from transformers import AutoModelForCausalLM

from foresay.model import MultiTokenModel
from foresay.models.config import MTPConfig
from tests.support.commands import LOADED, At, Run, one_object


def test_info_prints_one_object(at: At, run: Run) -> None:
    said = run("info", at.adapter, "--json")
    content = one_object(said)
    assert (said.status, said.err) == (0, LOADED)
    assert (content["base"], content["base_kind"], content["context"]) == ("nano", "LlamaForCausalLM", 1024)
    assert content["settings"] == {
        "num_masks": 3,
        "rank": 2,
        "alpha": 0.0,
        "lora_targets": ["all"],
        "sampler": "residual",
        "train_masks": True,
    }
    assert content["provenance"]["settings"]["steps"] == 2
    assert content["provenance"]["settings"]["train"]["dtype"] == content["dtype"] == "float32"
    assert content["provenance"]["settings"]["data"][0]["name"] == "data.jsonl"
    assert content["fingerprints"].keys() == {"base", "tokenizer", "chat_template", "embeddings", "base_adapter"}


def test_info_prints_a_page(at: At, run: Run) -> None:
    said = run("info", at.adapter)
    assert said.status == 0
    assert said.out.startswith(f"folder: {at.adapter}\nbase: nano\n")


def test_info_of_a_base_says_what_an_adapter_would_weigh(at: At, run: Run) -> None:
    content = one_object(run("info", at.bases / "other", "--json"))
    model = AutoModelForCausalLM.from_pretrained(at.bases / "other")
    assert (content["family"], content["base_kind"], content["dtype"]) == ("llama", "LlamaForCausalLM", "float32")
    assert content["base_parameters"] == model.num_parameters()
    assert (content["layers"], content["adapted_linears"], content["vocabulary"]) == (2, 14, 4096)
    for size in content["adapters"]:
        adapter = MultiTokenModel.from_base(model, MTPConfig(rank=size["rank"])).added
        assert size["parameters"] == sum(parameter.numel() for parameter in adapter.parameters())
        assert size["megabytes"] == size["parameters"] * 2 / 1e6
