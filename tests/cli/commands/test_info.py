"""`foresay info` at the command line."""

import re
from dataclasses import replace
from pathlib import Path

from transformers import AutoModelForCausalLM

from foresay.cli.commands.info import describe
from foresay.cli.views.info import model_facts
from foresay.cli.views.text import facts_text
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
        "lora_targets": ["auto"],
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
    assert re.match(rf"model +{at.adapter}\nbase +nano: LlamaForCausalLM, ", said.out)
    for fact in ("3 masks, LoRA of rank 2 on 18 linears", "2 steps in ", "context\n *1,024 tokens"):
        assert re.search(fact, said.out)


def test_a_page_fits_a_screen(at: At, run: Run) -> None:
    """24 lines of 80 columns, of what may be long: a folder, a base's name, a training, ten domains."""
    long = Path(f"{'a-long-name/' * 8}of-a-folder")
    described = replace(
        describe(MultiTokenModel.from_pretrained("nano"), "nano"),
        folder=str(long),
        base=str(long),
        base_adapter=str(long),
        quantization="nf4",
        left_alone=tuple(f"model.layers.{layer}.mlp.gate" for layer in range(40)),
    )
    measured = described.provenance["settings"] | {"data": [{"name": f"some-data-{n}.jsonl"} for n in range(12)]}
    rates = {f"domain {n}": 2.0 for n in range(10)}
    shown = facts_text(
        model_facts(
            replace(described, provenance=described.provenance | {"settings": measured, "tokens_per_step": rates})
        )
    ).plain.splitlines()
    names = [line for line in shown if str(long) not in line]
    assert len(shown) <= 24
    assert max(map(len, names)) < 80
    for view in (run("info", "nano").out, run("info", at.bases / "other").out):
        assert len(view.splitlines()) <= 24


def test_info_of_a_base_says_how_to_go_on(at: At, run: Run) -> None:
    said = " ".join(run("info", at.bases / "other").out.split())
    assert "none yet; it would act on 6 linears and weigh rank 16: " in said
    assert f"foresay train {at.bases / 'other'} --data" in said


def test_info_of_a_base_says_what_an_adapter_would_weigh(at: At, run: Run) -> None:
    content = one_object(run("info", at.bases / "other", "--json"))
    model = AutoModelForCausalLM.from_pretrained(at.bases / "other")
    assert (content["family"], content["base_kind"], content["dtype"]) == ("llama", "LlamaForCausalLM", "float32")
    assert content["base_parameters"] == model.num_parameters()
    assert (content["layers"], content["adapted_linears"], content["vocabulary"]) == (2, 6, 4096)
    for size in content["adapters"]:
        adapter = MultiTokenModel.from_base(model, MTPConfig(rank=size["rank"])).added
        assert size["parameters"] == sum(parameter.numel() for parameter in adapter.parameters())
        assert size["megabytes"] == size["parameters"] * 2 / 1e6
