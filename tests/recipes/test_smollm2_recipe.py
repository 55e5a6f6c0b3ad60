"""What `recipes/smollm2` makes is what lies in the package; its training prompts keep clear of the held-out ones."""

import csv
import json
import os
import runpy
import sys
from collections import Counter
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
        lines = (tmp_path / path.name).read_bytes().split(b"\n")
        assert len(lines) == 101
        assert lines[:60] == path.read_bytes().split(b"\n")[:60]


def prompts_for_training(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for path in sorted(folder.iterdir()) for line in path.open(encoding="utf-8")]


def test_prompts_for_training_are_in_no_set_that_is_evaluated_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("prompts.py", "--out", str(tmp_path), monkeypatch=monkeypatch)
    asked = prompts_for_training(tmp_path)
    assert Counter(row["domain"] for row in asked).keys() == {"math", "code", "chat", "knowledge", "safety"}
    heldout = runpy.run_path(str(RECIPE / "heldout.py"))
    known = {text for readers in heldout["DOMAINS"].values() for read in readers.values() for text in read(data)}
    # The bare tasks too, out of the frames that they are asked in; three of them are training tasks as well.
    tasks = [json.loads(line) for line in (data / "code/mbpp.jsonl").open()]
    known |= {task["text"] for task in tasks if 10 < task["task_id"] < 511}
    twice = {task["text"] for task in tasks if not 10 < task["task_id"] < 511} & known
    assert {task["task_id"] for task in tasks if task["text"] in twice} == {*heldout["TWICE"], 602, 704, 872}
    known -= twice
    known |= {row["prompt"] for row in csv.DictReader((data / "safety/xstest_prompts.csv").open())}
    known |= {turn for line in (data / "chat/spec_bench.jsonl").open() for turn in json.loads(line)["turns"]}
    assert known.isdisjoint(row["prompt"] for row in asked)
    assert not [row for row in asked if any(text in row["prompt"] for text in known if len(text) > 60)]
