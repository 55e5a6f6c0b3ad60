"""Every example runs on the embedded toy."""

import json
import re
import runpy
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., str]
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


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
    assert [line.split()[0] for line in said[:-1]] == ["chat", "code", "math", "stories"]
    assert all("tokens a step of 4 prompts; drafts kept: " in line for line in said[:-1])


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    rows = [{"prompt": f"What is {n} + 1?", "response": f"{n} + 1 is {n + 1}, as everyone knows."} for n in range(8)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "chats.jsonl"


def test_train(run: Run, chats: Path, tmp_path: Path) -> None:
    said = run("train_in_ten_lines.py", "nano", chats, tmp_path / "out", 2)
    assert "2 steps in" in said
    assert (tmp_path / "out" / "foresay.json").is_file()


def test_custom_loss(run: Run, chats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)  # as Python does for a script
    assert "2 steps, the loss is" in run("custom_loss.py", "nano", chats, tmp_path / "out", 2)
    saved = json.loads((tmp_path / "out" / "foresay.json").read_text())
    assert saved["provenance"]["settings"]["losses"]["own_loss"] == "custom_loss:focal"


def test_custom_layout(run: Run) -> None:
    said = run("custom_layout.py", "nano")
    assert [line.split()[0] for line in said.splitlines()] == ["linear", "ends", "quadratic"]
    assert said.count("the same text: True") == 3


def test_serve_and_stream(run: Run) -> None:
    said = run("serve_and_stream.py", "nano")
    assert len(said.splitlines()[0]) > 20
    assert " tokens in " in said.splitlines()[-1]


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is here: tests/serving/vllm/plugin asks it")
def test_vllm_is_asked_for_in_a_sentence(run: Run) -> None:
    """Where vLLM is not installed nobody can run the example; what it calls is tested with the plugin."""
    with pytest.raises(SystemExit, match="vLLM is not installed here; pip install"):
        run("inside_vllm.py", "nano", "served")


def test_every_example_is_in_the_index_and_tested() -> None:
    index, tests = (EXAMPLES / "README.md").read_text(), Path(__file__).read_text()
    files = sorted(file.name for file in EXAMPLES.iterdir() if file.suffix in (".py", ".ipynb"))
    assert [name for name in files if f"({name})" not in index or name not in tests] == []


def outputs(notebook: Any) -> list[list[Any]]:
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def test_notebook_runs() -> None:
    """quickstart.ipynb, every cell, of the embedded toy."""
    pytest.importorskip("nbclient", reason="notebooks are run with nbclient: pip install -e '.[test]'")
    shown = outputs(runpy.run_path(str(ROOT / "docs" / "make_notebook.py"))["run"]("nano"))
    texts = "".join(output.get("text", "") for cell in shown for output in cell)
    assert texts.count(": True") == 2


def test_notebook_keeps_its_outputs() -> None:
    nbformat = pytest.importorskip("nbformat", reason="notebooks are read with nbformat: pip install -e '.[test]'")
    shown = outputs(nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4))
    assert all(shown)
    kinds = {kind for cell in shown for output in cell for kind in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert not re.search(r"/(home|root|work|tmp)/", json.dumps(shown))


def test_heads_from_scratch(run: Run, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text(
        "\n\n".join(f"Once upon a time there were {n} hens. They had {n} eggs each day." for n in range(99))
    )
    assert "Once upon a time" in run("heads_from_scratch.py", texts, tmp_path / "out", 4)
