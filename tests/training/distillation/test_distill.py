"""The base's own answers as training data: whole shards, made once, the same however often the run was killed."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foresay.data.chat import encode
from foresay.data.corpus import read
from foresay.data.encoder import Encoder
from foresay.data.example import TEXT_PROMPT_TOKENS
from foresay.data.source import Source
from foresay.decoding.config import DecodeConfig, SampleConfig
from foresay.foundation.errors import DataError
from foresay.model import MultiTokenModel
from foresay.training.config import DistilConfig
from foresay.training.distillation.backend import Task
from foresay.training.distillation.distill import SETTINGS, Distiller
from foresay.training.distillation.local import LocalEngine
from tests.support.processes import start_program

QUESTIONS = [f"How many pens are {number} pens and {number} more?" for number in range(7)]
TASK = Task("nano", decode=DecodeConfig(max_new_tokens=6, masks=2), batch_size=2)


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in QUESTIONS))
    return path


def distiller(model: MultiTokenModel, data: Path, out: Path, sample: SampleConfig | None = None) -> Distiller:
    engine = LocalEngine(model, replace(TASK, sample=sample or SampleConfig()))
    return Distiller(engine, (Source(str(data)),), out, DistilConfig(shard_rows=3))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != SETTINGS}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for content in sorted(files(folder).items()) for line in content[1].splitlines()]


def test_a_question_beside_a_text_is_asked_whole(model: MultiTokenModel, tmp_path: Path) -> None:
    """As Alpaca's rows are: the text is the question and its answer once more."""
    question = "Say which of the many things that are said here are said at all, and which of them are not."
    (tmp_path / "data.jsonl").write_text(json.dumps({"instruction": question, "text": f"{question} All."}))
    distiller(model, tmp_path / "data.jsonl", tmp_path / "own").run()
    [row] = rows(tmp_path / "own")
    assert row["ids"][: row["prompt_tokens"]] == encode(model.require_tokenizer(), question)
    assert row["prompt_tokens"] > TEXT_PROMPT_TOKENS


def test_answers_are_the_bases_own_and_train_as_they_are(model: MultiTokenModel, data: Path, tmp_path: Path) -> None:
    done = distiller(model, data, tmp_path / "own").run()
    assert (done.rows, done.made) == (7, 7)
    found, tokenizer = rows(tmp_path / "own"), model.require_tokenizer()
    assert [row["row"] for row in found] == list(range(7))
    prompts = [encode(tokenizer, text) for text in QUESTIONS]
    said = model.decode(prompts, replace(TASK.decode, layout="plain", masks=0))
    assert [row["ids"] for row in found] == [[*prompt, *answer.tokens] for prompt, answer in zip(prompts, said)]
    part = read(Source(str(tmp_path / "own")), Encoder(tokenizer, 512))
    assert [list(example.ids) for example in part.examples] == [row["ids"] for row in found]
    assert [list(example.prompt) for example in part.examples] == prompts


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


@pytest.mark.parametrize("sample", [SampleConfig(), SampleConfig(temperature=1.0, seed=3)], ids=["greedy", "sampled"])
def test_a_second_start_makes_only_what_is_missing(
    model: MultiTokenModel, data: Path, tmp_path: Path, sample: SampleConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = distiller(model, data, tmp_path / "whole", sample)
    whole.run()
    broken = distiller(model, data, tmp_path / "broken", sample)

    def kill(done: Any) -> None:
        raise Killed

    def kill_in_the_second_shard(done: Any) -> None:
        if done.made > 2:
            raise Killed

    with pytest.raises(Killed):
        broken.run(kill)
    assert files(broken.out).keys() == {"_shard-000000.jsonl"}
    with pytest.raises(Killed):
        broken.run(kill_in_the_second_shard)
    assert files(broken.out).keys() == {"shard-000000.jsonl", "_shard-000001.jsonl"}
    # Killed while it wrote: what is not renamed is not there.
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", kill)
        with pytest.raises(Killed):
            broken.run()
    done = broken.run()
    assert (done.rows, done.made) == (7, 2)
    assert files(broken.out) == files(whole.out)
    (broken.out / "shard-000001.jsonl").unlink()
    assert broken.run().made == 3
    assert files(broken.out) == files(whole.out)


def test_rows_are_drawn_apart(model: MultiTokenModel, data: Path, tmp_path: Path) -> None:
    """The same question in several rows, batches and shards gets as many answers."""
    data.write_text((json.dumps({"question": QUESTIONS[0]}) + "\n") * 4)
    distiller(model, data, tmp_path / "own", SampleConfig(temperature=2.0)).run()
    assert len({tuple(row["ids"]) for row in rows(tmp_path / "own")}) == 4


def test_texts_are_continued_from_their_opening(model: MultiTokenModel, data: Path, tmp_path: Path) -> None:
    data.write_text(json.dumps({"text": "one two three " * 20, "domain": "counting"}))
    distiller(model, data, tmp_path / "own").run()
    [row] = rows(tmp_path / "own")
    assert row["prompt_tokens"] == TEXT_PROMPT_TOKENS
    assert row["domain"] == "counting"


def test_other_settings_than_before_are_refused(model: MultiTokenModel, data: Path, tmp_path: Path) -> None:
    first = distiller(model, data, tmp_path / "own")
    first.run()
    with pytest.raises(DataError, match=r"was begun with temperature 0\.0, now 1\.0; give the same, or another folder"):
        distiller(model, data, tmp_path / "own", SampleConfig(temperature=1.0)).run()
    data.write_text(json.dumps({"question": "Else?"}))
    with pytest.raises(DataError, match="was begun with data"):
        first.run()


def test_a_folder_of_something_else_is_refused(model: MultiTokenModel, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds something else"):
        distiller(model, data, tmp_path).run()


def test_a_kill_before_the_settings_were_whole_is_no_hindrance(
    model: MultiTokenModel, data: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / f".{SETTINGS}.1").write_text("{")
    distiller(model, data, own).run()
    assert sorted(path.name for path in own.iterdir() if path.suffix == ".jsonl")


def test_a_place_that_cannot_be_is_refused(model: MultiTokenModel, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="could not be written"):
        distiller(model, data, data / "own").run()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / SETTINGS).write_text("{")
    with pytest.raises(DataError, match=r"cannot be read .*; restore it, or give a new folder"):
        distiller(model, data, tmp_path / "own").run()


def test_unusable_prompts_are_counted(model: MultiTokenModel, data: Path, tmp_path: Path) -> None:
    with data.open("a") as file:
        file.write("{\n" + json.dumps({"title": "x"}) + "\n" + json.dumps({"question": "word " * 2000}) + "\n")
    done = distiller(model, data, tmp_path / "own").run()
    assert (done.rows, done.bad, done.too_long) == (7, 2, 1)


def test_killed_for_real_and_started_again(data: Path, tmp_path: Path) -> None:
    """kill -9 as soon as the first shard lies there; the same command then finishes."""
    out = tmp_path / "own"
    command = ["data", "generate", "nano", "--data", data, "--out", out, "--json"]
    command += ["--max-new-tokens", 4, "--batch-size", 1, "--shard-rows", 1]
    running = start_program(tmp_path, *command)
    while running.is_alive() and not (out / "shard-000000.jsonl").exists():
        time.sleep(0.001)
    running.kill()
    running.join()
    before = files(out)
    kept = {name.removeprefix("_"): content for name, content in before.items() if not name.startswith(".")}
    (tmp_path / "again").mkdir()
    again = start_program(tmp_path / "again", *command)
    again.join()
    assert again.exitcode == 0
    said = json.loads((tmp_path / "again" / "out").read_text())
    assert said["rows"] == 7
    assert said["made"] == 7 - len(kept)
    assert kept.items() <= files(out).items()
    assert not any(name.startswith((".", "_")) for name in files(out))
    assert [row["row"] for row in rows(out)] == list(range(7))


def test_rows_that_hold_no_prompt_are_counted_and_named(model: MultiTokenModel, tmp_path: Path) -> None:
    """What a template refuses, half a character and what is no question: the shard is made of the others."""
    asked = {"messages": [{"role": "user", "content": "How many?"}], "tools": [{"type": "function"}], "id": 3}
    rows_given = [
        asked,
        {"messages": [{"role": "assistant", "content": "Only me, and nobody else."}]},
        {"prompt": "what is \ud83d this?"},
        {"title": "no question"},
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_given))
    done = distiller(model, data, tmp_path / "own").run()
    assert (done.rows, done.bad, done.unread) == (1, 3, {"id": 1, "tools": 1})
    for line, why in ((2, "no message before the answer"), (3, "half a character"), (4, "has columns title")):
        assert any(f"rows.jsonl:{line}" in said and why in said for said in done.complaints), line
    assert [row["row"] for row in rows(tmp_path / "own")] == [0]
