"""Files that may be compressed, by the ending of their name."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from foresay.foundation.errors import DataError


def _zstandard(path: Path) -> io.BufferedReader:
    try:
        from pyarrow import input_stream  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise DataError(f"{path} needs pyarrow to be unpacked; run pip install 'foresay[data]'") from error
    return io.BufferedReader(input_stream(str(path), compression="zstd"))


COMPRESSED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstandard
}  # fmt: skip
"""What opens a file with this ending, to be read as bytes."""
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, as they are or unpacked. Raises DataError for one that cannot be unpacked."""
    if path.suffix not in COMPRESSED:
        with path.open("rb") as file:
            yield file
        return
    try:
        with COMPRESSED[path.suffix](path) as file:
            yield file
    except DAMAGED as error:
        raise DataError(f"{path} cannot be unpacked ({error}); pack it again, or give it unpacked") from error


def content_of(path: Path) -> bytes:
    """All bytes of a file. Raises DataError for one that cannot be unpacked."""
    with opened(path) as file:
        return file.read()
