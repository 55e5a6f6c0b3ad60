"""`foresay calibrate` at the command line."""

import re

import pytest

from tests.support.commands import LOADED, SHORT, At, Run, contents, one_object


def test_calibrate_prints_one_object_and_keeps_it(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESAY_CACHE", str(at.tmp / "cache"))
    calibrate = ["calibrate", at.adapter, "--batch-sizes", "1", "3", "4", "--contexts", "20", "--json"]
    said = run(*calibrate)
    content = one_object(said)
    assert (said.status, said.err) == (0, LOADED)
    assert content.keys() == {"curves", "acceptance", "provenance"}
    assert content["provenance"]["settings"]["dtype"] == "float32"
    assert [(curve["batch_size"], curve["context_tokens"]) for curve in content["curves"]] == [(1, 128), (4, 128)]
    for curve in content["curves"]:
        assert max(found["entry"]["masks"] for found in curve["entries"]) == 3
        assert curve["entries"][0]["entry"] == {"layout": "plain", "masks": 0, "lookup": 0}
        assert sum(found["chosen"] for found in curve["entries"]) == 1
    kept = contents(at.tmp / "cache")
    # Beside the costs lies what packing the linears brought, where this processor can.
    assert len([name for name in kept if name.startswith("costs-")]) == 2
    assert run("generate", at.adapter, "Hi", "--layout", "planned", *SHORT).status == 0
    assert contents(at.tmp / "cache") == kept
    run(*calibrate)
    assert contents(at.tmp / "cache").keys() == kept.keys()
    assert contents(at.tmp / "cache") != kept, "it measures anew"


def test_calibrate_prints_a_table(at: At, run: Run) -> None:
    said = run("calibrate", at.adapter, "--contexts", "1", "--seconds", "0.01")
    assert (said.status, said.err) == (0, LOADED)
    assert re.search(r"Not measured in 0\.01 s, so never taken here: .*quadratic 3.*; give more --seconds", said.out)
    for words in ("batch 1, 128 tokens cached", "expected tokens/s", "plain <", "< is what planned begins with"):
        assert words in said.out
