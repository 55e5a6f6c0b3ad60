"""`foresay data preview`: what carries loss and where blocks of masks are placed, as training will have it."""

import io
import json
from pathlib import Path

import pytest

from foresay.cli.main import main
from foresay.models.base.load import load_stop_tokens, load_tokenizer

ROW = {"messages": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One, two."}]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROW | {"domain": "sums"}) + '\n{"x": 1}\n' + json.dumps({"text": "Once upon."}))
    return path


def test_text_marks_loss_and_anchors(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "preview", "nano", "--data", str(data), "--anchors", "0", "--examples", "1"]) == 0
    said = capsys.readouterr().out
    assert f"{data}:1 sums" in said
    assert "<|user|>Count.<|assistant|>▾⟦One▾,▾ two▾.▾<|endoftext|>⟧" in said
    assert "3 rows (1 messages, 1 text; verified prefixes), 2 sequences" in said
    assert f"1 bad; {data}:2: it has columns x" in said
    assert "sums 1, (none) 1" in said


def test_json_says_the_same(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "preview", "nano", "--data", str(data), "--anchors", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [report["bad"] for report in said["reports"]] == [1]
    [shown, _] = said["shown"]
    carrying = [place for place, answered in enumerate(shown["example"]["answer"][1:]) if answered]
    assert len(shown["anchors"]) == 2
    assert set(shown["anchors"]) <= set(carrying)
    assert "".join(shown["tokens"]).startswith("<|user|>Count.")
    assert said["lengths"]["longest"] == max(len(each["example"]["ids"]) for each in said["shown"])


def test_strict_and_rows(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "preview", "nano", "--data", str(data), "--strict"]) == 2
    assert "a.jsonl:2: it has columns x" in capsys.readouterr().err
    assert main(["data", "preview", "nano", "--data", str(data), "--strict", "--rows", "1"]) == 0


def test_terminal_that_is_not_utf8_gets_plain_marks(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    assert main(["data", "preview", "nano", "--data", str(data), "--anchors", "0", "--examples", "1"]) == 0
    said = raw.getvalue().decode("ascii")
    assert "<|user|>Count.<|assistant|>^[[One^,^ two^.^<|endoftext|>]]" in said
    assert "[[green]] carries loss; a block of masks follows every ^" in said


def test_stop_tokens_come_from_the_base() -> None:
    assert load_stop_tokens("nano") == {load_tokenizer("nano").eos_token_id}
    assert load_stop_tokens("/nowhere") == frozenset()
