"""Every example runs on the embedded toy."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., str]
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(script: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_quickstart(run: Run) -> None:
    assert "the same text: True" in run("quickstart.py", "nano")


def test_chat_batch(run: Run) -> None:
    assert run("chat_batch.py", "nano").count("tokens a step") == 2


def test_inside_transformers(run: Run) -> None:
    assert run("inside_transformers.py", "nano").count("Once upon a time") == 2


def test_evaluate(run: Run) -> None:
    said = run("evaluate.py", "nano").splitlines()
    assert len(said) == 6
    assert all(line.endswith("1 of 1 identical") for line in said)


def test_train(run: Run, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n} + 1?", "response": f"{n} + 1 is {n + 1}, as everyone knows."} for n in range(8)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = run("train_in_ten_lines.py", "nano", tmp_path / "chats.jsonl", tmp_path / "out", 2)
    assert "2 steps in" in said
    assert (tmp_path / "out" / "foresay.json").is_file()


def test_heads_from_scratch(run: Run, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text(
        "\n\n".join(f"Once upon a time there were {n} hens. They had {n} eggs each day." for n in range(99))
    )
    assert "Once upon a time" in run("heads_from_scratch.py", texts, tmp_path / "out", 4)
