"""Wrappings of rows: compressed files, documents that wrap a list, tables of Arrow, and what none of them is."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from foresay.data.compressed import COMPRESSED
from foresay.data.records import Record, read_records
from foresay.data.source import Source
from foresay.foundation.errors import DataError

ROWS = [{"prompt": f"Say {number}.", "response": f"I say {number} again."} for number in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def rows(path: Path) -> list[dict[str, object]]:
    return [record.row for record in read_records(path)]


def zstandard(content: bytes) -> bytes:
    arrow = pytest.importorskip("pyarrow", reason="zst needs the extra `data`")
    packed: bytes = arrow.compress(content, codec="zstd", asbytes=True)
    return packed


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard
}  # fmt: skip


@pytest.mark.parametrize("packed", PACKED)
def test_packed_files_say_what_is_in_them(tmp_path: Path, packed: str) -> None:
    for name, content in (("a.jsonl", LINES), ("b.json", json.dumps(ROWS)), ("c.csv", "prompt,response\nx,y z\n")):
        path = tmp_path / f"{name}.{packed}"
        path.write_bytes(PACKED[packed](content.encode()))
        assert rows(path) == ([{"prompt": "x", "response": "y z"}] if name == "c.csv" else ROWS)
    assert len(list(Source(str(tmp_path)).records())) == 7
    torn = tmp_path / f"torn.jsonl.{packed}"
    torn.write_bytes(PACKED[packed](LINES.encode() * 500)[:-20])
    with pytest.raises(DataError, match=r"torn\.jsonl\.\w+ cannot be unpacked"):
        rows(torn)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS, indent=2),
        json.dumps({"version": 1, "data": ROWS}, indent=2),
        json.dumps({"version": 1, "data": ROWS}),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
    ],
    ids=["list", "wrapped", "wrapped on one line", "objects one after another"],
)
def test_documents_over_many_lines(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content + "\n")
    assert rows(path) == ROWS


def test_a_single_chat_is_a_row_and_no_wrapping(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    for content in (json.dumps(chat), json.dumps(chat, indent=2)):
        (tmp_path / "a.json").write_text(content)
        assert rows(tmp_path / "a.json") == [chat]


def test_bad_first_lines_are_bad_rows_and_no_document(tmp_path: Path) -> None:
    path, told = tmp_path / "a.jsonl", list[str]()
    path.write_text('{"prompt": \n' + LINES)
    assert [record.row for record in read_records(path, lambda error: told.append(str(error)))] == ROWS
    assert len(told) == 1
    assert f"{path}:1 is not JSON" in told[0]


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": ' * 100_000, "[1, 2"], ids=["lists", "objects", "torn"])
def test_what_cannot_be_parsed_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"a\.json(:1)? is (not JSON|nested too deeply)"):
        rows(path)


@pytest.mark.parametrize("content", ["".join(map(json.dumps, ROWS)), LINES.replace("\n", "\r")], ids=["none", "CR"])
def test_rows_with_no_newline_between_them(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content, newline="")
    assert rows(path) == ROWS


@pytest.mark.parametrize("name", ["A.JSONL", "a.ndjson", "a.JsonLines", "A.CSV", "A.CSV.GZ"])
def test_endings_in_any_letters_are_read_in_a_folder_too(tmp_path: Path, name: str) -> None:
    text = "prompt,response\n" + "".join(",".join(row.values()) + "\n" for row in ROWS) if "CSV" in name else LINES
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("GZ") else text.encode())
    assert rows(tmp_path / name) == [record.row for record in Source(str(tmp_path)).records()]
    assert len(rows(tmp_path / name)) == 3


def test_a_folder_named_as_a_file_is_a_folder(tmp_path: Path) -> None:
    part = tmp_path / "out.jsonl" / "part-0.jsonl"  # as Spark writes
    part.parent.mkdir()
    part.write_text(LINES)
    assert [record.row for record in Source(str(tmp_path)).records()] == ROWS


TWICE_NAMED = '{"prompt": "a", "prompt": "b", "response": "c"}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", f"{TWICE_NAMED}\n{LINES}", r"a\.jsonl:1 is not JSON \('prompt' is named twice\)"),
        ("a.json", f"[{TWICE_NAMED}]", r"a\.json is not JSON \('prompt' is named twice\)"),
        (
            "a.csv",
            "prompt,response,response\nx,y,z\n",
            r"a\.csv has two columns named 'response'; rename or remove one",
        ),
        ("a.jsonl", f'{{"id": {"1" * 5000}}}\n{LINES}', r"a\.jsonl:1 is not JSON \(Exceeds the limit"),
        ("a.json", f'[{{"id": {"1" * 5000}}}]', r"a\.json is not JSON \(Exceeds the limit"),
        ("a.csv", 'prompt,response\nx,"y\nz,w\n', r"a\.csv:2 is no row \(unexpected end of data\); double the quotes"),
        ("a.csv", 'prompt,response\n"a "b" c",y\n', r"a\.csv:2 is no row \(.* expected after .*\); double the quotes"),
    ],
)
def test_what_a_reader_would_drop_in_silence_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        rows(path)


def test_a_bad_quote_is_a_bad_row_and_the_others_are_read(tmp_path: Path) -> None:
    path, told = tmp_path / "a.csv", list[str]()
    path.write_text('\nprompt,response\n"a "b" c",y\n\nx,z\n')
    assert [record.row for record in read_records(path, lambda error: told.append(str(error)))] == [
        {"prompt": "x", "response": "z"}
    ]
    assert len(told) == 1


def test_parquet_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra `data`")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = arrow.array(["x"])
    parquet.write_table(arrow.table([column] * 3, names=["prompt", "response", "response"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has two columns named 'response'"):
        rows(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.json.gz"])
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / name).write_text("x")
    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setitem(COMPRESSED, ".gz", refuse)
    with pytest.raises(DataError, match=rf"{name} cannot be read \(.*Permission denied.*\); give one that can be"):
        rows(tmp_path / name)


def test_folder_of_save_to_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="Arrow needs the extra `data`")
    made = datasets.Dataset.from_list(ROWS)
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made, "test": made.select([0])}).save_to_disk(tmp_path / "two")
    for folder in ("one", "two"):
        assert [record.row for record in Source(str(tmp_path / folder)).records()] == ROWS
    [first, *_] = Source(str(tmp_path / "one")).records()
    assert first == Record(f"{tmp_path}/one/data-00000-of-00001.arrow, row 1", ROWS[0])
    assert [record.row for record in Source(str(tmp_path / "two"), split="test").records()] == ROWS[:1]


def test_torn_arrow_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Arrow needs the extra `data`")
    (tmp_path / "a.arrow").write_bytes(b"no table at all, but long enough for one")
    with pytest.raises(DataError, match=r"a\.arrow cannot be read as Arrow"):
        rows(tmp_path / "a.arrow")
