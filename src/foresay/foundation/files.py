"""Files and folders that are there whole or not at all, and the cache folder."""

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from foresay.foundation.errors import ArtefactError, ConfigError


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


def check_writable(folder: Path, overwrite: bool) -> None:
    """Raise ArtefactError when `folder` is or lies below a file, or holds something that may not be overwritten."""
    ground = next(parent for parent in folder.absolute().parents if parent.exists())
    if not ground.is_dir():
        raise ArtefactError(f"{folder} cannot be a folder because {ground} is a file; give another place")
    if folder.exists() and not folder.is_dir():
        raise ArtefactError(f"{folder} is a file; give a folder for the artefact")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ArtefactError(f"{folder} exists and is not empty; give another folder or --overwrite")


def check_output(folder: Path, overwrite: bool, read: Iterable[str | Path] = ()) -> None:
    """Raise ArtefactError, before any work is done, where `folder` may not be written, or holds what is `read`.

    Of `read`, what does not exist is passed over: hub ids, and names of what comes with foresay.
    """
    check_writable(folder, overwrite)
    check_apart(folder, read)


def check_apart(folder: Path, read: Iterable[str | Path]) -> None:
    """Raise ArtefactError when writing `folder` would remove one of the paths in `read`; hub ids are none."""
    for path in map(Path, read):
        if path.exists() and path.resolve().is_relative_to(folder.resolve()):
            raise ArtefactError(
                f"{folder} is to be written, and {path}, which is read, lies there; give another folder"
            )


@contextmanager
def replacing(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well, and vanishes when not."""
    check_writable(folder, overwrite)
    folder = folder.resolve()
    fresh = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield fresh
        _swap(fresh, folder)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"{folder} could not be written ({error}); what stood there before is unchanged") from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    """Put `fresh` where `folder` is; an old folder is moved aside first and removed last."""
    for path in (fresh, *fresh.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if not folder.exists():
        fresh.rename(folder)
        return
    aside = fresh.with_name(f"{fresh.name}.old")
    folder.rename(aside)
    try:
        fresh.rename(folder)
    except BaseException:
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills under a temporary name where there is none; it is there whole or not at all.

    Of two processes that make it at once, the one that is ready first wins: the content is the same. Raises OSError.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        make(fresh)
        for path in fresh.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        fresh.chmod(0o755)
        fresh.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def cache_folder() -> Path:
    """`FORESAY_CACHE`, else `~/.cache/foresay`."""
    return Path(os.environ.get("FORESAY_CACHE") or "~/.cache/foresay").expanduser()
