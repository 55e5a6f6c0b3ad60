"""`foresay advise` at the command line."""

import re

import pytest

from tests.support.commands import LOADED, At, Run, one_object


def test_advise_prints_one_object(at: At, run: Run) -> None:
    more = ["--batch-sizes", "1", "--acceptance", "0.6", "0.3", "--num-masks", "2", "--rank", "2", "--max-length", "32"]
    more += ["--sequences", "2", "--anchors", "2"]
    content = one_object(run("advise", "nano", "--json", *more))
    assert content["acceptance"] == {"given": [0.6, 0.3]}
    assert [offer["domain"] for offer in content["offers"]] == ["given"]
    assert content["offers"][0]["best"] in [
        " ".join([entry["entry"]["layout"], *[str(entry["entry"]["masks"])] * bool(entry["entry"]["masks"])])
        for entry in content["offers"][0]["entries"]
    ]
    assert content["training"]["steps"] == 500
    assert content["provenance"]["settings"]["dtype"] == "float32", "nano's checkpoint is in bfloat16"
    said = run("advise", "nano", *more)
    assert (said.status, said.err) == (0, LOADED)
    assert "expected tokens/s, batch 1, 128 tokens cached" in said.out
    assert "Training takes" in said.out


def test_too_few_rounds_for_an_interval_are_said(at: At, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    more = ["--batch-sizes", "1", "--acceptance", "0.6", "--num-masks", "2", "--rank", "2", "--max-length", "32"]
    more += ["--sequences", "2", "--anchors", "2", "--seconds", "0.001"]
    few = run("advise", "nano", *more).out
    monkeypatch.setattr("foresay.evaluation.speed.advise.median_interval", lambda values: (0.9, 1.1))
    enough = run("advise", "nano", *more).out
    assert re.search(r"^95 % +-\s*$", few, flags=re.M)
    assert "- no interval, for there were too few rounds: give more --seconds." in few
    assert "0.90-1.10" in enough
    assert "no interval" not in enough
