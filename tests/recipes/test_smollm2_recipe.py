"""What `recipes/smollm2` makes is what lies in the package; its training prompts keep clear of the held-out ones."""

import os
import runpy
import sys
from pathlib import Path

import pytest

from foresay.data.prompts import EMBEDDED

RECIPE = Path(__file__).parents[2] / "recipes" / "smollm2"
SHIPPED = EMBEDDED / "five_domains"


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("FORESAY_DATA")
    if folder is None:
        pytest.skip("the benchmarks are not here: set FORESAY_DATA to the folder that holds math/gsm8k_test.jsonl")
    return Path(folder)


def run(script: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(RECIPE / script), run_name="__main__")


@pytest.mark.usefixtures("data")
def test_the_script_draws_the_prompts_that_are_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("heldout.py", "--out", str(tmp_path), monkeypatch=monkeypatch)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_text(encoding="utf-8") for path in SHIPPED.glob("*.jsonl")}


@pytest.mark.usefixtures("data")
def test_more_prompts_begin_with_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("heldout.py", "--out", str(tmp_path), "--test", "80", monkeypatch=monkeypatch)
    for path in SHIPPED.glob("*.jsonl"):
        lines = (tmp_path / path.name).read_text(encoding="utf-8").splitlines()
        assert len(lines) == 100
        assert lines[:60] == path.read_text(encoding="utf-8").splitlines()
