"""Where training data come from: a file, a folder or a hub id, with its columns, its split and its weight."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from foresay.data.columns import columns_of
from foresay.data.records import SUFFIXES, Complain, Record, fatal, read_records, suffix_of
from foresay.foundation.errors import ConfigError, DataError, require
from foresay.foundation.hashes import SHORT, file_hash

COLUMNS = ("messages", "prompt", "response", "text", "domain", "system", "tools", "history", "input")
"""Columns that a source may have under other names."""
SPLITS = {"train", "test", "validation", "valid", "val", "dev", "eval"}
SETTINGS = ("weight", "rows", "subset", "split")
NO_DATA = re.compile(r"(readme|license|dataset_infos?|dataset_dict|state)\.|cache-", re.IGNORECASE)
"""Cards, and what `datasets.save_to_disk` writes beside its Arrow files."""
ADDRESS = re.compile(r"/datasets/(\w[\w.-]*/\w[\w.-]*)")
"""The hub id in the address of a data set, or of a file of it."""
LARGE_BYTES = 2**30
"""Hub datasets from here on are streamed, not downloaded."""


@dataclass(frozen=True, slots=True)
class Source:
    """One source of training data."""

    name: str
    """A file, a folder or a hub id."""
    weight: float | None = None
    """Share of its rows in a mixture, beside the other weights; None: as many as it has."""
    rows: int = 0
    """Rows read, from the first on; 0: all."""
    subset: str = ""
    """Subset (configuration) of a hub dataset."""
    split: str = "train"
    """Split of a hub dataset, or of a folder whose files are named after their splits."""
    columns: tuple[tuple[str, str], ...] = ()
    """(our name, name in the data) of columns that are not found by their usual names."""

    @classmethod
    def parse(cls, text: str, columns: tuple[str, ...] = ()) -> "Source":
        """A source as the command line writes it: `NAME[,weight=2][,rows=1000][,subset=main][,split=train]`.

        `[,prompt=COLUMN]` and the like name columns of this source, `columns` (`prompt=COLUMN`) those of every one.
        Commas may be part of the name: it is the longest beginning that is there, else what stands before the first.
        Raises ConfigError for an unknown setting.
        """
        name, *settings = _parts(text)
        require(bool(name), f"data {text!r} names nothing; give a file, a folder or a hub id")
        twice = [key for key, count in Counter(part.split("=")[0] for part in settings).items() if count > 1]
        require(not twice, f"data setting {', '.join(twice)} was given twice in {text!r}; give it once")
        said = dict(_setting(setting, (*SETTINGS, *COLUMNS)) for setting in settings)
        named = dict(_setting(column, COLUMNS) for column in columns)
        named |= {key: value for key, value in said.items() if key in COLUMNS}
        own: dict[str, Any] = {key: _value(key, value) for key, value in said.items() if key in SETTINGS}
        return cls(name, columns=tuple(named.items()), **own)

    def records(self, complain: Complain = fatal) -> Iterator[Record]:
        """The rows, with their columns under our names. Raises DataError; bad rows go to `complain`."""
        for record in islice(self._records(complain), self.rows or None):
            taken = {theirs for _, theirs in self.columns}
            if missing := sorted(taken - record.row.keys()):
                found = columns_of(record.row)
                complain(DataError(f"{record.place} has columns {found}, and not {missing[0]} as was asked"))
                continue
            others = {name: value for name, value in record.row.items() if name not in taken}
            yield Record(record.place, others | {ours: record.row[theirs] for ours, theirs in self.columns})

    def describe(self) -> dict[str, Any]:
        """Name, settings, and what its content is known by: hashes of files, or the hub's revision."""
        settings = {key: getattr(self, key) for key in (*SETTINGS, "columns") if getattr(self, key)}
        if self.on_hub:
            return {"name": self.name, **settings, "revision": _builder(self.name, self.subset).hash}
        return {"name": Path(self.name).name, **settings, "files": [_describe(path) for path in self.files()]}

    @property
    def on_hub(self) -> bool:
        """Whether the name can only be a hub id."""
        path = Path(self.name)
        shaped = re.fullmatch(r"\w[\w.-]*/[\w.-]+", self.name) is not None
        return shaped and not path.exists() and not suffix_of(path)

    def files(self) -> list[Path]:
        """The local files, a folder's in order of name. Raises DataError for a folder without any for the split."""
        folder = Path(self.name)
        self._check_local(folder.is_dir())
        if not folder.is_dir():
            return [folder]
        paths = (path for path in sorted(folder.rglob("*")) if not path.is_dir())
        found = [path for path in paths if _is_data(path.relative_to(folder))]
        words = {path: set(re.split(r"[^a-z]+", str(path.relative_to(folder)).lower())) for path in found}
        named = [path for path in found if self.split in words[path]]
        files = named or [path for path in found if not words[path] & SPLITS]
        if not files:
            seen = ", ".join(path.name for path in found[:5]) or "none"
            raise DataError(
                f"folder {folder} has no data file for split {self.split} (data files: {seen}); give a folder with "
                f"{', '.join(sorted(SUFFIXES))} files, or another split as {folder},split=NAME"
            )
        return files

    def _check_local(self, folder: bool) -> None:
        """Raise ConfigError for an address, and for settings that a local file, or folder, has no use for."""
        if "://" in self.name:
            found = ADDRESS.search(self.name)
            cure = f"the hub id in it, {found[1]}" if found else "a file, a folder or a hub id (owner/name)"
            raise ConfigError(f"data {self.name} is an address; give {cure}")
        for name, wanted in (("subset", self.subset), ("split", "" if folder or self.split == "train" else self.split)):
            require(
                not wanted,
                f"{name} {wanted} of {self.name} was asked for, and a local {'folder' if folder else 'file'} has no "
                f"{name}s; leave {name}={wanted} out",
            )

    def _records(self, complain: Complain) -> Iterator[Record]:
        if self.on_hub:
            yield from hub_records(self)
        else:
            for path in self.files():
                yield from read_records(path, complain)


def hub_records(source: Source) -> Iterator[Record]:
    """The rows of a hub dataset, streamed where it is large or only some rows are asked for. Raises DataError."""
    try:
        builder = _builder(source.name, source.subset)
        if source.rows or (builder.info.download_size or LARGE_BYTES) >= LARGE_BYTES:
            rows = builder.as_streaming_dataset(split=source.split)
        else:
            builder.download_and_prepare()
            rows = builder.as_dataset(split=source.split)
        for number, row in enumerate(rows, 1):
            yield Record(f"{source.name} ({source.split}), row {number}", row)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreachable(source.name, error) from error


def _builder(name: str, subset: str) -> Any:
    try:
        import datasets  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise DataError(
            f"{name} is neither a file nor a folder, and hub data need datasets; mend the path, or run "
            "pip install 'foresay[data]'"
        ) from error
    try:
        return datasets.load_dataset_builder(name, subset or None)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: Exception) -> DataError:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(
        f"no data {name!r}: no such file or folder, and the hub says {first}; give a local path, or a reachable hub "
        "id with ,subset=NAME and ,split=NAME where it needs them"
    )


def _is_data(path: Path) -> bool:
    """Of a path inside a folder: whether it holds rows, and not a card or something hidden."""
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    return bool(suffix_of(path)) and not hidden and not NO_DATA.match(path.name)


def _describe(path: Path) -> dict[str, Any]:
    """Name, size and hash of a file."""
    if not path.is_file():
        next(read_records(path), None)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": file_hash(path)[:SHORT]}


def _parts(text: str) -> list[str]:
    """Name and settings of a source."""
    parts = text.split(",")
    for count in range(len(parts), 1, -1):
        if Path(name := ",".join(parts[:count])).exists():
            return [name, *parts[count:]]
    return parts


def _setting(text: str, known: tuple[str, ...]) -> tuple[str, str]:
    key, _, value = text.partition("=")
    if key not in known or not value:
        raise ConfigError(f"data setting {text!r} is not known; give NAME=VALUE with one of {', '.join(known)}")
    return key, value


def _value(key: str, value: str) -> str | int | float:
    try:
        number = float(value) if key == "weight" else int(value) if key == "rows" else None
    except ValueError:
        number = -1
    if number is not None and not 0 < number < float("inf"):
        raise ConfigError(f"data setting {key} is {value}; give a number above 0")
    return value if number is None else number
