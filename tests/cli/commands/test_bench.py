"""`foresay bench` at the command line."""

import sys

import pytest

from foresay.model import MultiTokenModel
from tests.support.commands import BENCH, LOADED, SHORT, At, Run, contents, one_object


def test_bench_prints_one_object(at: At, run: Run) -> None:
    prompts = at.file('{"prompt": "Say 3.", "domain": "say"}\n{"text": "Once upon a time"}\n')
    said = run("bench", at.adapter, "--json", "--prompts", prompts, "--repeats", "1", "--masks", "1", "3", *SHORT)
    content = one_object(said)
    assert said.status == 0
    assert content.keys() == {"results", "provenance"}
    assert content["provenance"]["settings"]["dtype"] == "float32"
    decoders = [(result["domain"], result["decoder"], result["masks"]) for result in content["results"]]
    ours = [("linear", 1), ("linear", 3), ("quadratic", 1), ("quadratic", 3), ("planned", 0)]
    names = [("transformers", 0), ("prompt lookup", 0), ("plain", 0), *ours]
    assert decoders == [(domain, *name) for domain in ("say", "input") for name in names]
    assert all(result["identical"] == result["prompts"] == 1 for result in content["results"])


def test_bench_prints_tables(at: At, run: Run) -> None:
    prompts = at.file('{"prompt": "Say 3."}\n')
    said = run("bench", at.adapter, "--prompts", prompts, "--batch-sizes", "1", "2", *BENCH)
    assert (said.status, said.err) == (0, LOADED)
    for words in (
        "batch 1, prompts as they are, float32",
        "batch 2, prompts as they are, float32",
        "prompt lookup",
        "quadratic 3",
        "drafts kept, by position, %",
        "times plain, mean of the domains, prompts as they are",
        "6 of 6 answers are identical to transformers' own",
    ):
        assert words in said.out


def test_bench_draws(at: At, run: Run) -> None:
    pytest.importorskip("matplotlib")
    prompts = at.file('{"prompt": "Say 3."}\n')
    said = run("bench", at.adapter, "--prompts", prompts, "--json", "--plot", at.tmp / "new" / "pictures", *BENCH)
    assert one_object(said)["results"]
    drawn = sorted((at.tmp / "new" / "pictures").iterdir())
    assert [path.name for path in drawn] == ["costs.png", "speedups.png"]
    assert all(str(path) in said.err for path in drawn)


def test_bench_says_before_measuring_that_it_cannot_draw(at: At, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(MultiTokenModel, "from_pretrained", lambda *_, **__: pytest.fail("it went on"))
    said = run("bench", at.adapter, "--plot", at.tmp / "pictures")
    assert (said.status, said.out) == (2, "")
    assert "not installed here; pip install 'foresay[plot]'" in said.err
    assert contents(at.tmp) == {}


def test_names_that_look_like_markup_are_printed_as_they_are(at: At, run: Run) -> None:
    prompts = at.file('{"prompt": "Say 3.", "domain": "[/b]"}\n')
    said = run("bench", at.adapter, "--prompts", prompts, *BENCH)
    assert said.status == 0
    assert "[/b]" in said.out
