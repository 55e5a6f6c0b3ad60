"""The rows of a data file, one after another: JSON, JSON lines, CSV, Parquet or one plain text.

A row that cannot be read is told of, with file and line, and left out; whoever is told may raise instead.
"""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foresay.foundation.errors import DataError

Complain = Callable[[DataError], None]
"""Told of every bad row; raises where one bad row is one too many."""
CSV_SUFFIXES = {".csv": ",", ".tsv": "\t"}
TEXT_SUFFIXES = {".txt", ".md"}
SUFFIXES = {".json", ".jsonl", ".parquet", *CSV_SUFFIXES, *TEXT_SUFFIXES}
LONGEST_CELL = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data file, before tokenisation."""

    place: str
    """File and line, for messages."""
    row: dict[str, Any]


def fatal(error: DataError) -> None:
    """Put up with no bad row."""
    raise error


def read_records(path: Path, complain: Complain = fatal) -> Iterator[Record]:
    """The rows of a local file, read as they are asked for (a JSON list and a text at once).

    Raises DataError for a file that cannot be read at all; rows that are none go to `complain`.
    """
    if not path.is_file():
        raise DataError(
            f"data file {path} does not exist; give a local JSON, JSONL or text file, CSV, Parquet, a folder of them, "
            "or a hub id like owner/name"
        )
    if path.suffix in TEXT_SUFFIXES:
        yield from _text(path)
    elif path.suffix in CSV_SUFFIXES:
        yield from _csv(path, complain)
    elif path.suffix == ".parquet":
        yield from _parquet(path)
    elif _opens_list(path):
        yield from _json_list(path, complain)
    else:
        yield from _json_lines(path, complain)


def _text(path: Path) -> Iterator[Record]:
    text = _decoded(path.read_bytes(), str(path))
    if text.strip():
        yield Record(f"{path}:1", {"text": text})


def _opens_list(path: Path) -> bool:
    with path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"")
    return first.lstrip(b"\xef\xbb\xbf \t").startswith(b"[")


def _json_list(path: Path, complain: Complain) -> Iterator[Record]:
    try:
        rows = json.loads(_decoded(path.read_bytes(), str(path)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno} is not JSON ({error.msg}); mend or remove the line") from error
    for number, row in enumerate(rows, 1):
        yield from _object(row, f"{path}, item {number}", complain)


def _json_lines(path: Path, complain: Complain) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(_decoded(line, f"{path}:{number}"))
            except DataError as error:
                complain(error)
            except (json.JSONDecodeError, RecursionError) as error:
                why = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
                complain(DataError(f"{path}:{number} is not JSON ({why}); mend or remove the line"))
            else:
                yield from _object(row, f"{path}:{number}", complain)


def _object(row: Any, place: str, complain: Complain) -> Iterator[Record]:
    if isinstance(row, dict):
        yield Record(place, row)
    else:
        complain(DataError(f"{place} is {type(row).__name__}, not an object with columns; write one object a row"))


def _csv(path: Path, complain: Complain) -> Iterator[Record]:
    # Python refuses cells of 128 KiB, which a long conversation fills.
    csv.field_size_limit(LONGEST_CELL)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=CSV_SUFFIXES[path.suffix])
            columns, line = len(rows.fieldnames or ()), rows.line_num
            for row in rows:
                # A quoted cell may hold newlines: a row stands at its first line.
                place, line = f"{path}:{line + 1}", rows.line_num
                cells = sum(value is not None for value in row.values())
                if None in row or cells < columns:
                    found = columns + len(row[None]) if None in row else cells
                    complain(DataError(f"{place} has {found} cells and the header {columns}; quote or mend the row"))
                else:
                    yield Record(place, row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); save it as UTF-8 with a header row") from error


def _parquet(path: Path) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException  # noqa: PLC0415 (an extra)
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow to be read; run pip install 'foresay[data]'") from error
    try:
        batches = ParquetFile(path).iter_batches(batch_size=1000)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield Record(f"{path}, row {number}", row)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error}); write it again") from error


def _decoded(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
