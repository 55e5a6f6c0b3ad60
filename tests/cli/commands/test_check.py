"""`foresay check` at the command line."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch

from foresay.cli.commands.options import Opening
from foresay.decoding.sampling import chooser as choose
from foresay.decoding.sampling.randomness import SeededNumbers
from foresay.model import MultiTokenModel
from tests.support.commands import CHECKED, SHORT, TWO, At, Run, one_object, plain_base


def test_check_prints_one_object(at: At, run: Run) -> None:
    said = run("check", at.adapter, "--json", *CHECKED)
    content = one_object(said)
    assert said.status == 0
    keys = {"prompts", "tokens", "dtype", "identical", "ties", "bugs", "tokens_per_step", "divergences", "sentence"}
    assert content.keys() >= {*keys, "sampling"}
    figures = {"samples", "shift", "power", "p_values", "corrected", "control", "has_power", "sentence"}
    assert content["sampling"].keys() >= figures
    assert content["sampling"]["sample"]["temperature"] == 1
    assert content["provenance"]["settings"]["shift"] == 0.5
    assert content["provenance"]["settings"]["dtype"] == content["dtype"] == "float32"
    assert content["untouched"]["holds"]
    assert content["passed"]
    assert (content["prompts"], content["identical"], content["bugs"]) == (4, 8, 0)
    assert content["sentence"] == "Lossless: 8 of 8 answers are identical to plain decoding."


def test_check_says_one_sentence(at: At, run: Run) -> None:
    said = run("check", at.adapter, *CHECKED)
    assert said.status == 0
    first, second, surety, base, third, fourth = said.out.splitlines()
    assert surety.startswith("Of 4 prompts 0 have a bug and 0 differ at all")
    assert base.startswith("The base is untouched")
    assert first == "Lossless: 8 of 8 answers are identical to plain decoding."
    assert re.fullmatch(r"4 prompts, \d+ tokens in float32; per step: linear \d\.\d\d, quadratic \d\.\d\d", second)
    assert third.startswith("Sampling shows no bias: linear p = ")
    assert re.fullmatch(
        r"\d+ answers a layout, \d+ of transformers: a total variation of 0\.50 between 32 classes is found with 80% "
        "chance",
        fourth,
    )


def test_check_without_a_temperature_samples_nothing(at: At, run: Run) -> None:
    said = run("check", at.adapter, *CHECKED, "--temperature", "0")
    assert (said.status, len(said.out.splitlines())) == (0, 4)
    assert one_object(run("check", at.adapter, *CHECKED, "--temperature", "0", "--json"))["sampling"] is None


def test_a_certificate_goes_into_a_file(at: At, run: Run) -> None:
    prompts = at.file('{"prompt": "Say 3.", "domain": "math"}\n{"prompt": "Be kind.", "domain": "safety"}\n')
    out = at.tmp / "new" / "certificate.json"
    more = ["--prompts", prompts, "--batch-sizes", "1", "2", "--temperature", "0", "--out", out, *TWO, *SHORT]
    said = run("check", at.adapter, *more)
    assert said.status == 0
    assert [path.name for path in out.parent.iterdir()] == ["certificate.json"]
    content = json.loads(out.read_text())
    assert content["domains"] == {"math": 1, "safety": 1}
    assert [(count["layout"], count["batch_size"]) for count in content["counts"]] == [
        ("linear", 1),
        ("quadratic", 1),
        ("linear", 2),
        ("quadratic", 2),
    ]


def test_a_base_that_changes_fails_the_check(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Opening.open

    def spoilt(*args: Any) -> MultiTokenModel:
        model = real(*args)
        model.base.model.model.norm.weight.data[0] += 1e-3
        return model

    monkeypatch.setattr(Opening, "open", spoilt)
    said = run("check", at.adapter, *CHECKED, "--temperature", "0")
    assert said.status == 1
    assert "The base is NOT itself any more: its weights and its logits changed." in said.out
    assert "Lossless: 8 of 8 answers" in said.out


def test_check_fails_on_a_bias(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SeededNumbers, "accept", lambda self, chances, places: chances >= 0)
    said = run("check", at.adapter, *CHECKED, "--json")
    assert said.status == 1
    assert "Sampling is BIASED in linear and quadratic" in said.out
    assert "Lossless: 8 of 8 answers" in said.out
    assert max(one_object(said)["sampling"]["corrected"].values()) < 0.01


@pytest.mark.parametrize("json_", [True, False], ids=["json", "text"])
def test_check_fails_on_a_bug(at: At, run: Run, monkeypatch: pytest.MonkeyPatch, json_: bool) -> None:
    real = choose.verify_greedy

    def one_up(*args: torch.Tensor) -> Any:
        own = real(*args)
        return replace(own, tokens=(own.tokens + 1) % 4096)

    monkeypatch.setattr(choose, "verify_greedy", one_up)
    said = run("check", at.adapter, *CHECKED, "--temperature", "0", *(["--json"] if json_ else []))
    assert said.status == 1
    assert "NOT lossless: 8 of 8 answers differ" in said.out
    if json_:
        assert one_object(said)["bugs"] == 8
    else:
        assert said.out.count(" bug") >= 8


def test_a_base_without_a_chat_template_is_checked(at: At, run: Run) -> None:
    assert run(*at.train(base=plain_base(at))).status == 0
    assert run("check", at.out, *CHECKED).status == 0
