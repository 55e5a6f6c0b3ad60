"""The rows of a data file, one after another: JSON, JSON lines, CSV, Parquet, Arrow or one plain text.

Texts may be compressed (`.gz`, `.bz2`, `.xz`, `.zst`). A row that cannot be read is told of, with file and line, and
left out; whoever is told may raise instead.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foresay.data.compressed import COMPRESSED, content_of, opened
from foresay.foundation.errors import DataError

Complain = Callable[[DataError], None]
"""Told of every bad row; raises where one bad row is one too many."""
CSV_SUFFIXES = {".csv": ",", ".tsv": "\t"}
TEXT_SUFFIXES = {".txt", ".md"}
TABLES = {".parquet", ".arrow"}
PLAIN_SUFFIXES = {".json", ".jsonl", *CSV_SUFFIXES, *TEXT_SUFFIXES}
SUFFIXES = {*PLAIN_SUFFIXES, *TABLES}
LONGEST_CELL = 2**31 - 1
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""How JSON writes half of a character, or the halves of a whole one."""
SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a data file, before tokenisation."""

    place: str
    """File and line, for messages."""
    row: dict[str, Any]


def fatal(error: DataError) -> None:
    """Put up with no bad row."""
    raise error


def suffix_of(path: Path) -> str:
    """The ending that says the format, under that of a compression; empty: none that is known."""
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix
    known = PLAIN_SUFFIXES if path.suffix in COMPRESSED else SUFFIXES
    return suffix if suffix in known else ""


def read_records(path: Path, complain: Complain = fatal) -> Iterator[Record]:
    """The rows of a local file, read as they are asked for (a JSON document and a text at once).

    Raises DataError for a file that cannot be read at all; rows that are none go to `complain`.
    """
    if not path.is_file():
        raise DataError(
            f"data file {path} does not exist; give a local JSON, JSONL or text file, CSV, Parquet or Arrow, a folder "
            "of them, or a hub id like owner/name"
        )
    suffix = suffix_of(path)
    if suffix in TEXT_SUFFIXES:
        yield from _text(path)
    elif suffix in CSV_SUFFIXES:
        yield from _csv(path, CSV_SUFFIXES[suffix], complain)
    elif suffix in TABLES:
        yield from _table(path, suffix)
    else:
        yield from _json(path, complain)


def _text(path: Path) -> Iterator[Record]:
    text = _decoded(content_of(path), str(path))
    if text.strip():
        yield Record(f"{path}:1", {"text": text})


def _json(path: Path, complain: Complain) -> Iterator[Record]:
    """JSON lines, or one document: a list of rows, an object that wraps one, or objects printed over many lines."""
    with opened(path) as file:
        lines = [line for line in (next(filter(bytes.strip, file), b""), next(filter(bytes.strip, file), b"")) if line]
    first = lines[0].lstrip(b"\xef\xbb\xbf \t") if lines else b""
    if first.startswith(b"["):
        yield from _rows(_document(path), path, complain)
    elif len(lines) == 1 or (first.startswith(b"{") and not _is_json(first)):
        rows = _values(path)
        wrapped = _wrapped(rows[0]) if len(rows) == 1 else None
        if wrapped is not None:
            yield from _rows(wrapped, path, complain)
        elif rows and len(lines) > 1:
            yield from _rows(rows, path, complain)
        else:
            yield from _json_lines(path, complain)
    else:
        yield from _json_lines(path, complain)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _document(path: Path) -> Any:
    try:
        return json.loads(_decoded(content_of(path), str(path)))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno} is not JSON ({error.msg}); mend or remove the line") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply to be read as JSON; write one object a row") from error


def _values(path: Path) -> list[Any]:
    """The JSON values of a file, each over as many lines as it likes; none where the file is no such thing."""
    found, decoder = list[Any](), json.JSONDecoder()
    try:
        text = _decoded(content_of(path), str(path)).strip()
        place = 0
        while place < len(text):
            value, end = decoder.raw_decode(text, place)
            found.append(value)
            place = end + len(SPACE.match(text, end)[0])  # type: ignore[index]
    except (DataError, json.JSONDecodeError, RecursionError):
        return []
    return found


def _wrapped(document: Any) -> list[Any] | None:
    """The rows inside an object that is no row itself: its one list of objects that are no messages."""
    if not isinstance(document, dict):
        return None
    lists = [
        value
        for value in document.values()
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    ]
    rows = lists[0] if len(lists) == 1 else []
    return rows if rows and not any({"role", "from"} & row.keys() for row in rows) else None


def _rows(rows: Any, path: Path, complain: Complain) -> Iterator[Record]:
    for number, row in enumerate(rows, 1):
        yield from _object(row, f"{path}, item {number}", complain)


def _json_lines(path: Path, complain: Complain) -> Iterator[Record]:
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}:{number}"
            try:
                row = json.loads(_decoded(line, place))
            except DataError as error:
                complain(error)
            except (json.JSONDecodeError, RecursionError) as error:
                why = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
                complain(DataError(f"{place} is not JSON ({why}); mend or remove the line"))
            else:
                yield from _object(row, place, complain, checked=SURROGATE.search(line) is None)


def _object(row: Any, place: str, complain: Complain, checked: bool = False) -> Iterator[Record]:
    if not isinstance(row, dict):
        complain(DataError(f"{place} is {type(row).__name__}, not an object with columns; write one object a row"))
    elif not checked and _broken(row):
        complain(DataError(f"{place} holds half a character (a lone surrogate); mend or remove the row"))
    else:
        yield Record(place, row)


def _broken(row: Any) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _csv(path: Path, delimiter: str, complain: Complain) -> Iterator[Record]:
    # Python refuses cells of 128 KiB, which a long conversation fills.
    csv.field_size_limit(LONGEST_CELL)
    try:
        with opened(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter)
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


def _table(path: Path, suffix: str) -> Iterator[Record]:
    """Parquet, or Arrow as `datasets` writes it with `save_to_disk`."""
    try:
        from pyarrow import ArrowException, ipc  # noqa: PLC0415 (an extra)
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow to be read; run pip install 'foresay[data]'") from error
    try:
        batches = ParquetFile(path).iter_batches(batch_size=1000) if suffix == ".parquet" else _arrow(path, ipc)
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield Record(f"{path}, row {number}", row)
    except (ArrowException, OSError) as error:
        kind = "Parquet" if suffix == ".parquet" else "Arrow"
        raise DataError(f"{path} cannot be read as {kind} ({error}); write it again") from error


def _arrow(path: Path, ipc: Any) -> Iterator[Any]:
    """Record batches of a stream, as `datasets` writes them, or of a file (Feather)."""
    with path.open("rb") as file:
        if file.read(6) == b"ARROW1":
            whole = ipc.open_file(path)
            yield from (whole.get_batch(number) for number in range(whole.num_record_batches))
        else:
            file.seek(0)
            yield from ipc.open_stream(file)


def _decoded(content: bytes, place: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 at byte {error.start}; save it as UTF-8") from error
