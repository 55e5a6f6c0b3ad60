"""Wrappings of rows: compressed files, documents that wrap a list, tables of Arrow, and what none of them is."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

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
