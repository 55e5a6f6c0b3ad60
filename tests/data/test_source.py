"""Where data come from: files of every kind, folders, hub ids, settings, weights; bad rows are counted."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from foresay.data import corpus
from foresay.data.corpus import Part, Report, read
from foresay.data.encoder import Encoder
from foresay.data.example import Example
from foresay.data.mixture import mix, split
from foresay.data.records import fatal, read_records
from foresay.data.source import Source, hub_records
from foresay.foundation.errors import ConfigError, DataError
from foresay.models.base.load import load_tokenizer

ROWS = [{"prompt": f"Say {number}.", "response": f'I say "{number}",\nand {number} again.'} for number in range(5)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer("nano")


def encoder(tokenizer: PreTrainedTokenizerBase) -> Encoder:
    return Encoder(tokenizer, 64)


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """`rows` in the format that the name ends with."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        arrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra `data`")
        pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# Formats and folders.


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet"])
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    assert [record.row for record in read_records(write(tmp_path, name, ROWS))] == ROWS


def test_places_in_a_csv_are_the_first_lines_of_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", ROWS[:3])
    assert [record.place for record in read_records(path)] == [f"{path}:{line}" for line in (2, 4, 6)]


@pytest.mark.parametrize(("line", "found"), [("a,b,c\n", 3), ("a\n", 1)])
def test_csv_row_with_other_cells_than_its_header_is_bad(tmp_path: Path, line: str, found: int) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,response\nx,y\n" + line)
    with pytest.raises(DataError, match=rf"a\.csv:3 has {found} cells and the header 2"):
        list(read_records(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            ",split=test",
            r"split test of .*a\.jsonl was asked for, and a local file has no splits; leave split=test out",
        ),
        (
            ",subset=main",
            r"subset main of .*a\.jsonl was asked for, and a local file has no subsets; leave subset=main",
        ),
        (",rows=5,rows=3", "data setting rows was given twice in"),
    ],
)
def test_settings_that_nothing_heeds_are_refused(tmp_path: Path, source: str, message: str) -> None:
    path = write(tmp_path, "a.jsonl", ROWS)
    with pytest.raises(ConfigError, match=message):
        Source.parse(f"{path}{source}").files()
    with pytest.raises(ConfigError, match="a local folder has no subsets"):
        Source(str(tmp_path), subset="main").files()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "names nothing; give a file, a folder or a hub id"),
        ("https://huggingface.co/datasets/openai/gsm8k", "is an address; give the hub id in it, openai/gsm8k"),
        ("hf://datasets/openai/gsm8k/main/a.parquet", "is an address; give the hub id in it, openai/gsm8k"),
        ("s3://bucket/a.jsonl", r"is an address; give a file, a folder or a hub id \(owner/name\)"),
    ],
)
def test_names_of_nothing_and_addresses_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Source.parse(name).files()


def test_a_folder_gives_its_training_split(tmp_path: Path) -> None:
    write(tmp_path, "data/train-00001-of-00002.jsonl", ROWS[2:4])
    write(tmp_path, "data/train-00000-of-00002.csv", ROWS[:2])
    write(tmp_path, "data/test-00000-of-00001.jsonl", ROWS[4:])
    (tmp_path / "README.md").write_text("# card")
    assert [record.row for record in Source(str(tmp_path)).records()] == ROWS[:4]
    assert [record.row for record in Source(str(tmp_path), split="test").records()] == ROWS[4:]
    with pytest.raises(DataError, match=r"no data file for split dev .*train-00000"):
        Source(str(tmp_path), split="dev").files()


def test_a_folder_without_splits_gives_everything(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", ROWS[:1])
    write(tmp_path, "deeper/b.json", ROWS[1:])
    assert [record.row for record in Source(str(tmp_path)).records()] == ROWS


@pytest.mark.parametrize("rows", [0, 3], ids=["whole", "streamed"])
def test_hub_data_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A local folder in the hub's layout stands for the hub."""
    datasets = pytest.importorskip("datasets", reason="hub data need the extra `data`")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path, "hub/data/train-00000-of-00001.parquet", ROWS)
    write(tmp_path, "hub/data/test-00000-of-00001.parquet", ROWS[:1])
    source = Source(str(tmp_path / "hub"), rows=rows)
    found = list(hub_records(source))
    assert [record.row for record in found] == ROWS
    assert found[1].place == f"{source.name} (train), row 2"


def test_hub_id_out_of_reach_is_refused() -> None:
    pytest.importorskip("datasets", reason="hub data need the extra `data`")
    source = Source("nobody/nothing")
    assert source.on_hub
    with pytest.raises(DataError, match=r"no data 'nobody/nothing': no such file or folder, and the hub says"):
        source.describe()


# Settings.


def test_settings_follow_the_name(tmp_path: Path) -> None:
    said = Source.parse("a/b,weight=2.5,rows=10,subset=main,split=test,prompt=Q", columns=("prompt=x", "response=A"))
    assert said == Source("a/b", 2.5, 10, "main", "test", (("prompt", "Q"), ("response", "A")))
    odd = write(tmp_path, "a,b=c.jsonl", ROWS)
    assert Source.parse(str(odd)) == Source(str(odd))
    assert Source.parse(f"{odd},weight=2") == Source(str(odd), weight=2.0)


@pytest.mark.parametrize("setting", ["wieght=2", "weight", "weight=", "weight=0", "weight=nan", "rows=-1", "rows=x"])
def test_unknown_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="data setting"):
        Source.parse(f"a.jsonl,{setting}")


def test_columns_are_found_under_other_names(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    odd = write(tmp_path, "odd.csv", [{"Q": row["prompt"], "A": row["response"], "prompt": "?"} for row in ROWS])
    source = Source(str(odd), columns=(("prompt", "Q"), ("response", "A")))
    usual = read(Source(str(write(tmp_path, "usual.jsonl", ROWS))), encoder(tokenizer))
    assert list(read(source, encoder(tokenizer)).examples) == list(usual.examples)
    with pytest.raises(DataError, match=r"odd\.csv:2 has columns A, Q, prompt, and not B as was asked"):
        list(Source(str(odd), columns=(("response", "B"),)).records(fatal))


def test_a_column_under_its_other_name_is_used_and_others_are_not(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [{"": str(place), "Q": row["prompt"], "A": row["response"], " b ": "x"} for place, row in enumerate(ROWS)]
    source = Source(str(write(tmp_path, "odd.jsonl", rows)), columns=(("prompt", "Q"), ("response", "A")))
    assert read(source, encoder(tokenizer)).report.unread == {"' b '": 5, "''": 5}


def test_rows_that_are_bad_or_too_short_are_told_apart(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [{"prompt": "Say 1.", "response": ""}, {"prompt": "Say 2."}]
    with pytest.raises(DataError, match=r"none of the 2 rows .*; 1 are bad, the others too short; the first: .*:2: it"):
        read(Source(str(write(tmp_path, "a.jsonl", rows))), encoder(tokenizer))


def test_rows_stop_early(tmp_path: Path) -> None:
    assert len(list(Source(str(write(tmp_path, "a.jsonl", ROWS)), rows=2).records())) == 2


def test_conversations_are_messages(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    turns = [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello you."}]
    named = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello you."}]
    first, second = (
        list(read(Source(str(write(tmp_path, f"{name}.jsonl", [{name: rows}]))), encoder(tokenizer)).examples)
        for name, rows in (("conversations", turns), ("messages", named))
    )
    assert first == second


# Bad rows.


def test_bad_rows_are_counted_with_their_lines(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(ROWS[0]), "{", "[1]", '{"title": "a"}', '{"messages": []}', json.dumps({"text": "Once upon."})]
    path.write_text("\n".join(lines))
    report = read(Source(str(path)), encoder(tokenizer)).report
    assert (report.rows, report.bad, report.examples) == (6, 4, 2)
    assert report.schemas == {"prompt/response": 1, "text": 1}
    assert [complaint.split(" ")[0].rstrip(":") for complaint in report.complaints] == [
        f"{path}:{line}" for line in (2, 3, 4, 5)
    ]
    assert "4 bad" in report.sentence
    with pytest.raises(DataError, match=r"a\.jsonl:2 is not JSON"):
        read(Source(str(path)), encoder(tokenizer), strict=True)


def test_data_without_one_good_row_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = write(tmp_path, "a.jsonl", [{"title": "a"}, {"title": "b"}])
    with pytest.raises(
        DataError, match=r"none of the 2 rows of .* can be used; the first: .*a\.jsonl:1: it has columns"
    ):
        read(Source(str(path)), encoder(tokenizer))


# The cache.


def test_tokens_are_made_once(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path, "a.jsonl", [row | {"domain": f"d{place % 2}"} for place, row in enumerate(ROWS)])
    report = Report("", "")
    plain = list(corpus.encoded(Source(str(path)), encoder(tokenizer), report, strict=True))
    first = read(Source(str(path)), encoder(tokenizer))
    assert list(first.examples) == plain
    assert [example.domain for example in first.examples] == ["d0", "d1", "d0", "d1", "d0"]
    assert first.examples[-1] == plain[-1]
    monkeypatch.setattr(Encoder, "encode", lambda *_: pytest.fail("made again"))
    again = read(Source(str(path), weight=2.0), encoder(tokenizer))
    assert list(again.examples) == plain
    assert again.report.tokens == first.report.tokens


def test_tokens_are_made_anew_when_anything_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path / "cache"))
    tokenizer, path = load_tokenizer("nano"), write(tmp_path, "a.jsonl", ROWS)
    kept = tmp_path / "cache" / "tokens"

    def made(use: Encoder, source: Source) -> int:
        read(source, use)
        return len(list(kept.iterdir()))

    source = Source(str(path))
    assert made(Encoder(tokenizer, 64), source) == 1
    assert made(Encoder(tokenizer, 32), source) == 2
    assert made(Encoder(tokenizer, 64, frozenset({0, 1})), source) == 3
    assert made(Encoder(tokenizer, 64), Source(str(path), rows=3)) == 4
    write(tmp_path, "a.jsonl", ROWS[:4])
    assert made(Encoder(tokenizer, 64), source) == 5
    assert len(read(source, Encoder(tokenizer, 64)).examples) == 4
    tokenizer.chat_template = tokenizer.chat_template.replace("<|user|>", "<|user|>\n")
    assert made(Encoder(tokenizer, 64), source) == 6
    tokenizer.add_tokens(["I say"])
    assert made(Encoder(tokenizer, 64), source) == 7


def test_refused_data_leave_no_cache(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError):
        read(Source(str(write(tmp_path, "a.jsonl", [{"title": "a"}]))), encoder(tokenizer))
    assert list((tmp_path / "cache" / "tokens").iterdir()) == []


# Mixtures.


def part(name: str, size: int, weight: float | None = None) -> Part:
    examples = [Example((number, 1, 2), (True,) * 3, name) for number in range(size)]
    return Part(examples, Report(name, ""), {}, weight)


def test_without_weights_everything_once() -> None:
    train, heldout = split([part("a", 30), part("b", 10)], heldout=8, seed=0)
    assert len(heldout) == 8
    assert len({(example.domain, example.ids) for example in [*train, *heldout]}) == 40 == len(train) + 8


@pytest.mark.parametrize("weights", [(2.0, 1.0), (1.0, 3.0), (1.0, None), (0.5, 0.1)])
def test_weights_are_shares_and_nothing_is_lost(weights: tuple[float, float | None]) -> None:
    train, heldout = split([part("a", 60, weights[0]), part("b", 20, weights[1])], heldout=10, seed=0)
    counts = {name: sum(example.domain == name for example in train) for name in "ab"}
    assert counts["a"] / counts["b"] == pytest.approx(weights[0] / (weights[1] or 1), rel=0.05)
    seen, away = ({(example.domain, example.ids) for example in group} for group in (train, heldout))
    assert len(seen) == 70
    assert not seen & away, "held-out examples are never trained on, however often a part is repeated"
    each = [sum(e == example for e in train) for example in set(train)]
    assert max(each) - min(each) <= round(max(counts.values()) / 10)


def test_a_mixture_is_a_function_of_the_seed() -> None:
    parts = [part("a", 12, 2.5), part("b", 7, 1.0)]
    first, again, other = (list(split(parts, 2, seed)[0]) for seed in (0, 0, 1))
    assert first == again != other


def test_mix_repeats_in_whole_passes_first() -> None:
    places = np.array([(0, index) for index in range(5)] + [(1, index) for index in range(2)])
    mixed = mix(places, (1.0, 1.0), seed=0).tolist()
    assert len(mixed) == 10
    assert sorted(mixed.count([1, index]) for index in range(2)) == [2, 3]
