"""What a run left: the JSON files of the verbs, told apart by what they hold."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from foresay.decoding.planning.planner import Cost, Entry
from foresay.decoding.step_costs import Curve
from foresay.evaluation.speed.bench import Bench, Result
from foresay.foundation.errors import DataError

KINDS = {
    "certificate": {"bugs", "divergences", "identical"},
    "bench": {"results", "provenance"},
    "evaluation": {"rows", "domains", "samples"},
    "costs": {"curves"},
    "advice": {"offers", "break_even"},
    "training": {"folder", "steps", "loss"},
    "study": {"study", "figures", "verdict"},
    "adapter": {"mtp", "fingerprints", "base"},
}
"""What a file is, by keys that only such a file has."""
SINCE: dict[str, Any] = {
    "lengthened_to": 0,
    "first_token_seconds": math.nan,
    "peak_memory_bytes": None,
    "prompt_tokens": math.nan,
}
"""What the results of a bench did not always hold."""
MEASURED = {entry.name for entry in fields(Result)} - SINCE.keys()
"""What they always hold."""


@dataclass(frozen=True, slots=True)
class ResultFile:
    """One file of the run."""

    name: str
    """Told apart from all others of the run."""
    kind: str
    content: dict[str, Any]
    path: Path = Path()
    """Where it lies."""

    @property
    def provenance(self) -> dict[str, Any]:
        """Where it comes from, as far as it says; a study has that for each cell, and its first one tells."""
        cells = self.content.get("results") if self.kind == "study" else None
        told = cells[0] if cells else self.content
        said: dict[str, Any] = told.get("provenance") or {}
        return said


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """All files, in order of name."""

    files: tuple[ResultFile, ...] = field(default_factory=tuple)
    unreadable: tuple[Path, ...] = ()
    """Files of the folders, named as JSON, that are none: an interrupted `--json > FILE` leaves such a one."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Contents of the files of a kind."""
        return [file.content for file in self.files if file.kind == kind]

    @property
    def benches(self) -> list[Bench]:
        """Speed."""
        return [
            Bench(tuple(Result(**SINCE | row) for row in content["results"]), content["provenance"])
            for content in self.of("bench")
        ]

    @property
    def curves(self) -> list[Curve]:
        """What steps cost, from `calibrate`, else from `advise`."""
        found = [curve for content in self.of("costs") for curve in content["curves"]]
        offers = [offer for content in self.of("advice") for offer in content["offers"]]
        cells = {(curve["batch_size"], curve["context_tokens"]): curve for curve in found or offers}
        return [
            Curve(size, context, {Entry(**entry["entry"]): _cost(entry) for entry in curve["entries"]})
            for (size, context), curve in cells.items()
        ]


def read_run(paths: Sequence[Path]) -> ResultFiles:
    """The files named, and those in the folders named, each once. Raises DataError where there is nothing to report."""
    found = [one for path in paths for one in _files(path)]
    files = {one.path.resolve(): one for one in found if isinstance(one, ResultFile)}
    unreadable = {one: None for one in found if isinstance(one, Path)}
    if not files:
        names = ", ".join(map(str, paths)) or "what was named (nothing)"
        raise DataError(
            f"{names} holds no results{_none_of(unreadable)}; give the JSON of foresay check, bench, eval, calibrate, "
            "advise, study or train (`--json > FILE`, `--out FILE`), or a folder of them"
        )
    return ResultFiles(tuple(_told_apart(files.values())), tuple(unreadable))


def _none_of(unreadable: Iterable[Path]) -> str:
    """What was found in place of results, for a message."""
    names = ", ".join(map(str, unreadable))
    return f" ({names}: no JSON in it)" if names else ""


def _told_apart(files: Iterable[ResultFile]) -> list[ResultFile]:
    """The same files; by their whole paths where two have the same name."""
    files = list(files)
    clash = len({file.name for file in files}) < len(files)
    return [replace(file, name=str(file.path)) for file in files] if clash else files


def _files(named: Path) -> Iterator[ResultFile | Path]:
    """The results in a folder or file, and the paths of what is no JSON.

    A folder may hold other JSON too; a file that is named must be one of ours. Raises DataError.
    """
    if not named.exists():
        raise DataError(f"{named} does not exist; give a file with the JSON of a verb, or a folder of them")
    paths = sorted(named.rglob("*.json")) if named.is_dir() else [named]
    for path in paths:
        content = _content(path, named=path == named)
        kind = _kind(content)
        if content is None and path != named:
            yield path
        elif kind is not None:
            yield ResultFile(path.name if path == named else str(path.relative_to(named)), kind, content, path)
        elif path == named:
            raise DataError(
                f"{path} is no result of foresay; give JSON of check, bench, eval, calibrate, advise, study or train"
            )


def _kind(content: Any) -> str | None:
    """What a file is; results that are no bench's stand in other files too."""
    said = content if isinstance(content, dict) else {}
    kind = next((name for name, keys in KINDS.items() if keys <= said.keys()), None)
    rows = said.get("results", []) if kind == "bench" else []
    whole = isinstance(rows, list) and all(isinstance(row, dict) and row.keys() >= MEASURED for row in rows)
    return kind if whole else None


def _content(path: Path, named: bool) -> Any:
    """What a file holds; None where it cannot be read and nobody asked for it by name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if not named:
            return None
        raise DataError(f"{path} cannot be read as JSON ({error}); mend or remove it") from error


def _cost(entry: dict[str, Any]) -> Cost:
    return Cost(entry["drafted_seconds"], entry["undrafted_seconds"], entry["rows"])
