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

from foresay.foundation.errors import DataError, first_line


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
UNPACKING = ("unpacked", "pack it again, or give it unpacked")


def packing_of(path: Path) -> str:
    """The ending of a compression, in small letters; empty: it is not compressed."""
    suffix = path.suffix.lower()
    return suffix if suffix in COMPRESSED else ""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, as they are or unpacked. Raises DataError for one that cannot be read or unpacked."""
    packing = packing_of(path)
    try:
        with COMPRESSED[packing](path) if packing else path.open("rb") as file:
            yield file
    except DAMAGED as error:
        unread = isinstance(error, PermissionError) or not packing
        failed, cure = ("read", "give one that can be") if unread else UNPACKING
        raise DataError(f"{path} cannot be {failed} ({first_line(error)}); {cure}") from error


def content_of(path: Path) -> bytes:
    """All bytes of a file. Raises DataError for one that cannot be read or unpacked."""
    with opened(path) as file:
        return file.read()
