"""The cells of a study one by one, each kept on disk when it is whole: started again, only what is missing runs.

A result is found by the hash of all that it depends on: settings, seed, base, data, prompts.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from foresay.evaluation.studies.inputs import StudyInputs
from foresay.evaluation.studies.run_cell import run_cell
from foresay.evaluation.studies.study import Cell, Point, Study
from foresay.foundation.errors import ArtefactError, in_words, require
from foresay.foundation.files import check_writable, put
from foresay.foundation.hashes import json_hash
from foresay.foundation.provenance import provenance
from foresay.training.loop.progress import Progress
from foresay.training.recipe import Recipe
from foresay.training.train import settled

MARKER = "study.json"
"""Says which study a folder holds."""


@dataclass(frozen=True, slots=True)
class GridRun:
    """A cell with its seed."""

    cell: Cell
    recipe: Recipe
    """With the settings and the seed of the cell."""
    identity: Mapping[str, Any]
    """All that its result depends on, ready for JSON."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.cell.label}, seed {self.recipe.train.seed}"

    @property
    def file(self) -> str:
        """Name of its result: for people, then the hash of what it is."""
        words = re.sub(r"[^a-z0-9]+", "-", self.cell.label.lower()).strip("-")
        return f"{words}-{self.recipe.train.seed}-{json_hash(self.identity)}.json"


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of a cell."""

    label: str
    seed: int
    seconds: float
    """Spent on it, measuring included."""
    loss: float
    """Of its last step."""
    points: tuple[Point, ...]
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Grid:
    """Every cell of a study for every seed, and the folder that keeps their results."""

    study: Study
    folder: Path
    material: StudyInputs
    runs: tuple[GridRun, ...]

    @property
    def missing(self) -> list[GridRun]:
        """Cells without a result."""
        return [run for run in self.runs if self._read(run) is None]

    def wanted(self, labels: Sequence[str]) -> list[GridRun]:
        """Those of the missing cells that have one of these labels; no label: all."""
        return [run for run in self.missing if not labels or run.cell.label in labels]

    @property
    def results(self) -> list[Result]:
        """Of the cells that are done, in order."""
        return [result for run in self.runs if (result := self._read(run)) is not None]

    def run(self, watch: Callable[[GridRun, Progress], None], labels: Sequence[str] = ()) -> Iterator[Result]:
        """Run what is missing of the cells with these labels (none: of all), and give each result once it is kept.

        `watch` is told of every step.

        Raises ArtefactError where a result cannot be written.
        """
        for run in self.wanted(labels):
            self._write(MARKER, {"study": self.study.name})
            started, last = time.perf_counter(), Progress()

            def tell(progress: Progress, run: GridRun = run) -> None:
                nonlocal last
                last = progress
                watch(run, progress)

            points = run_cell(self.study, run.cell, run.recipe, self.material, tell)
            found = Result(
                label=run.cell.label,
                seed=run.recipe.train.seed,
                seconds=round(time.perf_counter() - started, 1),
                loss=last.losses.total,
                points=tuple(points),
                identity=run.identity,
                provenance=provenance(base=run.recipe.base, data=[str(name) for name in run.recipe.data]),
            )
            self._write(run.file, asdict(found))
            yield found

    def _read(self, run: GridRun) -> Result | None:
        """The result of a cell; None where it is missing, torn, or another one's."""
        try:
            said = json.loads((self.folder / run.file).read_text(encoding="utf-8"))
            found = Result(**said | {"points": tuple(Point(**point) for point in said["points"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return found if found.identity == run.identity else None

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        """Whole or not at all."""
        path = self.folder / name
        kept = f"the {len(self.results)} cells done before it are kept: make room and start the same command again"
        with in_words(ArtefactError, f"{path} could not be written", kept):
            put(path, json.dumps(content, indent=1, ensure_ascii=False))


def grid_of(study: Study, start: Cell, seeds: Sequence[int], recipe: Recipe, material: StudyInputs) -> Grid:
    """Every cell that the study makes of `start`, for the first seed, then for the next; kept in the recipe's `out`."""
    cells = study.cells(start)
    return Grid(
        study,
        recipe.out,
        material,
        tuple(_run(study, cell, seed, recipe, material) for seed in seeds for cell in cells),
    )


def _run(study: Study, cell: Cell, seed: int, recipe: Recipe, material: StudyInputs) -> GridRun:
    own = settled(replace(recipe, mtp=cell.mtp, losses=cell.losses, train=replace(cell.train, seed=seed)))
    named = {"study": study.name, "cell": cell.label, "variant": cell.variant}
    # As JSON reads it again, so that what was kept can be compared.
    return GridRun(cell, own, json.loads(json.dumps({**named, **material.identity(own)})))


def check_folder(folder: Path, study: str) -> None:
    """Raise ArtefactError when the folder holds another study, or something that is none."""
    marker = folder / MARKER
    check_writable(folder, overwrite=marker.is_file())
    if marker.is_file():
        with in_words(ArtefactError, f"{marker} is damaged", "give another folder", ValueError, TypeError, KeyError):
            held = json.loads(marker.read_text(encoding="utf-8"))["study"]
        if held != study:
            raise ArtefactError(f"{folder} holds the study {held}, and {study} was asked for; give another folder")


def check_cells(study: Study, start: Cell, labels: Sequence[str]) -> None:
    """Raise ConfigError for a label that no cell of the study has."""
    known = [cell.label for cell in study.cells(start)]
    for label in labels:
        require(label in known, f"{study.name} has no cell {label!r}; its cells are: {'; '.join(known)}")
