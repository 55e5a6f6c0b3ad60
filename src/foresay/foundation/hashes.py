"""SHA-256 of what things are known by. A short hash is its first 16 hexadecimal digits."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SHORT = 16


def sha256(parts: Iterable[str | bytes | memoryview]) -> str:
    """Of these parts, one after the other, as 64 hexadecimal digits; text counts as UTF-8.

    >>> sha256(["a", b"b"]) == sha256(["ab"])
    True
    """
    content = hashlib.sha256()
    for part in parts:
        content.update(part.encode() if isinstance(part, str) else part)
    return content.hexdigest()


def short_hash(*parts: str | bytes | memoryview) -> str:
    """The short hash of these parts."""
    return sha256(parts)[:SHORT]


def json_hash(content: Any) -> str:
    """The short hash of what JSON can hold; the order of keys does not matter."""
    return short_hash(json.dumps(content, sort_keys=True))


def file_hash(path: Path) -> str:
    """sha256 of a file, read block by block. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
