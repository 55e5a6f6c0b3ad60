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

from foresay.foundation.errors import ArtefactError, ConfigError, in_words


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
    """`put`, for a file that the user named. Raises ConfigError."""
    with in_words(ConfigError, f"{path} cannot be written", "give a file in a folder that can be"):
        put(path, text)


def check_file(path: Path) -> None:
    """Raise ConfigError, before any work is done, where `path` could not be written."""
    ground = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not ground.is_dir() or not os.access(ground, os.W_OK):
        raise ConfigError(f"{path} cannot be written; give a file in a folder that can be")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """`write_whole` of one JSON object."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def check_writable(folder: Path, overwrite: bool) -> None:
    """Raise ArtefactError when `folder` cannot be made, or holds something that may not be overwritten."""
    ground = next(parent for parent in folder.absolute().parents if parent.exists())
    if not ground.is_dir():
        raise ArtefactError(f"{folder} cannot be a folder because {ground} is a file; give another folder")
    if folder.exists() and not folder.is_dir():
        raise ArtefactError(f"{folder} is a file; give a folder for the artefact")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ArtefactError(f"{folder} exists and is not empty; give another folder or --overwrite")
    if not os.access(ground, os.W_OK | os.X_OK):
        raise ArtefactError(f"{folder} cannot be made, because {ground} may not be written; give another folder")
    for place, whose in (
        (Path.cwd(), "the folder that you are in"),
        (Path(os.path.expanduser("~")), "your home folder"),
    ):
        if place.resolve().is_relative_to(folder.resolve()):
            raise ArtefactError(f"{folder} would be replaced whole and is or holds {whose}; give a folder of its own")


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


def check_outside(folder: Path, data: Iterable[str | Path]) -> None:
    """Raise ArtefactError where `folder` lies in a folder of data, which would hold it when it is read again."""
    for path in map(Path, data):
        if path.is_dir() and folder.resolve().is_relative_to(path.resolve()):
            raise ArtefactError(
                f"{folder} is to be written and lies in {path}, which is read as data; give a folder outside of it"
            )


@contextmanager
def replacing(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well, and vanishes when not."""
    check_writable(folder, overwrite)
    folder = folder.resolve()
    unchanged = "what stood there before is unchanged"
    with in_words(ArtefactError, f"{folder} could not be written", unchanged, SafetensorError), beside(folder) as fresh:
        yield fresh
        install(fresh, folder)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, which `make` fills under a temporary name where there is none; it is there whole or not at all.

    Of two processes that make it at once, the one that is ready first wins: the content is the same. Raises OSError.
    """
    if folder.is_dir():
        return folder
    with beside(folder) as fresh:
        make(fresh)
        settle(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


@contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """An empty folder under a temporary name beside `folder`, which vanishes at the end unless it got another name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def install(fresh: Path, folder: Path) -> None:
    """Put `fresh` where `folder` is, once its content is on the disk. Raises OSError; an old folder then stays.

    An old folder is moved aside first and removed last.
    """
    settle(fresh)
    if not folder.exists():
        fresh.rename(folder)
    else:
        aside = fresh.with_name(f"{fresh.name}.old")
        folder.rename(aside)
        try:
            fresh.rename(folder)
        except BaseException:
            aside.rename(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    _sync(folder.parent)


def settle(folder: Path) -> None:
    """Make a folder that was filled outlast a power cut, and readable as files usually are."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    folder.chmod(0o755)
    _sync(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder under another name, so that a kill leaves no half of it where it was."""
    if folder.exists():
        gone = folder.with_name(f".{folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """`FORESAY_CACHE`, else `~/.cache/foresay`."""
    return Path(os.environ.get("FORESAY_CACHE") or "~/.cache/foresay").expanduser()
