"""The rows of a data file, one after another: JSON, JSON lines, CSV, Parquet, Arrow or one plain text.

Texts may be compressed (`.gz`, `.bz2`, `.xz`, `.zst`). A row that cannot be read is told of, with file and line, and
left out; whoever is told may raise instead.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foresay.data.compressed import content_of, opened, packing_of
from foresay.foundation.errors import DataError, first_line

Complain = Callable[[DataError], None]
"""Told of every bad row; raises where one bad row is one too many."""
CSV_SUFFIXES = {".csv": ",", ".tsv": "\t"}
TEXT_SUFFIXES = {".txt", ".md"}
TABLES = {".parquet", ".arrow"}
PLAIN_SUFFIXES = {".json", ".jsonl", ".ndjson", ".jsonlines", *CSV_SUFFIXES, *TEXT_SUFFIXES}
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
    """The ending that says the format, in small letters, under that of a compression; empty: none that is known."""
    packed = packing_of(path)
    suffix = Path(path.stem if packed else path).suffix.lower()
    return suffix if suffix in (PLAIN_SUFFIXES if packed else SUFFIXES) else ""


def read_records(path: Path, complain: Complain = fatal) -> Iterator[Record]:
    """The rows of a local file, read as they are asked for (a JSON document and a text at once).

    Raises DataError for a file that cannot be read at all; rows that are none go to `complain`.
    """
    if not path.is_file():
        found = "is no file" if path.exists() else "does not exist"
        raise DataError(
            f"data file {path} {found}; give a local JSON, JSONL or text file, CSV, Parquet or Arrow, a folder of "
            "them, or a hub id like owner/name"
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
        elif max(len(rows), len(lines)) > 1 and rows:
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


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; raises ValueError where it names something twice, of which JSON would keep the last alone."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in found if names.count(name) > 1)!r} is named twice")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_distinct)


def _document(path: Path) -> Any:
    try:
        return DECODER.decode(_decoded(content_of(path), str(path)))
    except (ValueError, RecursionError) as error:
        place = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else path
        raise DataError(f"{place} is not JSON ({_why(error)}); mend it, or write one object a line") from error


def _why(error: Exception) -> str:
    """Why a text cannot be read as JSON."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else first_line(error)


def _values(path: Path) -> list[Any]:
    """The JSON values of a file, each over as many lines as it likes; none where the file is no such thing."""
    found = list[Any]()
    try:
        text = _decoded(content_of(path), str(path)).strip()
        place = 0
        while place < len(text):
            value, end = DECODER.raw_decode(text, place)
            found.append(value)
            place = end + len(SPACE.match(text, end)[0])  # type: ignore[index]
    except (DataError, ValueError, RecursionError):
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
                row = DECODER.decode(_decoded(line, place))
            except DataError as error:
                complain(error)
            except (ValueError, RecursionError) as error:
                complain(DataError(f"{place} is not JSON ({_why(error)}); mend or remove the line"))
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
            # Strict: else a quote that nobody closes makes one cell of all that follows it.
            rows = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(filter(None, rows), [])
            _check_header(header, path)
            for place, cells in _cells(rows, path, complain):
                if len(cells) == len(header):
                    yield Record(place, dict(zip(header, cells)))
                elif cells:
                    said = f"{place} has {len(cells)} cells and the header {len(header)}; quote or mend the row"
                    complain(DataError(said))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); save it as UTF-8 with a header row") from error


def _cells(rows: Any, path: Path, complain: Complain) -> Iterator[tuple[str, list[str]]]:
    """The cells of each row, and where it stands: at its first line, for a quoted cell may hold newlines."""
    while True:
        place = f"{path}:{rows.line_num + 1}"
        try:
            cells = next(rows, None)
        except csv.Error as error:
            complain(DataError(f"{place} is no row ({error}); double the quotes inside a cell, and close it"))
            continue
        if cells is None:
            return
        yield place, cells


def _check_header(names: list[str], path: Path) -> None:
    """Raise DataError where two columns bear one name: a row would keep the last alone."""
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"{path} has two columns named {twice[0]!r}; rename or remove one")


def _table(path: Path, suffix: str) -> Iterator[Record]:
    """Parquet, or Arrow as `datasets` writes it with `save_to_disk`."""
    try:
        from pyarrow import ArrowException, ipc  # noqa: PLC0415 (an extra)
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow to be read; run pip install 'foresay[data]'") from error
    try:
        batches = ParquetFile(path).iter_batches(batch_size=1000) if suffix == ".parquet" else _arrow(path, ipc)
        for number, row in enumerate(_rows_of(batches, path), 1):
            yield Record(f"{path}, row {number}", row)
    except (ArrowException, OSError) as error:
        kind = "Parquet" if suffix == ".parquet" else "Arrow"
        raise DataError(f"{path} cannot be read as {kind} ({error}); write it again") from error


def _rows_of(batches: Iterable[Any], path: Path) -> Iterator[dict[str, Any]]:
    for batch in batches:
        _check_header(batch.schema.names, path)
        yield from batch.to_pylist()


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
