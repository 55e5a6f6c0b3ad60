"""A file that is there whole or not at all."""

import json
import os
import secrets
from pathlib import Path
from typing import Any

from foresay.errors import ConfigError


def put(path: Path, text: str) -> None:
    """Write under a temporary name, to the disk, then rename. Raises OSError; what stood there before then stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """`put`, for a place that the user named. Raises ConfigError."""
    try:
        put(path, text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error}); give a place that can") from error


def check_place(path: Path) -> None:
    """Raise ConfigError, before any work is done, where `path` could not be written."""
    ground = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not ground.is_dir() or not os.access(ground, os.W_OK):
        raise ConfigError(f"{path} cannot be written; give a file in a folder that can be")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """`write_whole` of one JSON object."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
