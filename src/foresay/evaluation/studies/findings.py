"""What a study found so far: lines with their spread over seeds, and the verdict."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from foresay.evaluation.studies.grid import Grid, GridRun, Result
from foresay.evaluation.studies.study import Figure, Lines, Spread, Verdict


@dataclass(frozen=True, slots=True)
class Findings:
    """A study, whole or in part."""

    study: str
    asked: int
    """Cells times seeds."""
    missing: tuple[str, ...]
    """Cells that are not done, with their seeds."""
    figures: tuple[tuple[Figure, Lines], ...]
    verdict: Verdict
    results: tuple[Result, ...]

    @property
    def partial(self) -> str:
        """That cells are missing, and how many; empty when none is."""
        if not self.missing:
            return ""
        return f"PARTIAL: {len(self.results)} of {self.asked} cells are done; missing: {'; '.join(self.missing)}"


def findings(grid: Grid) -> Findings:
    """What lies in the folder of a grid."""
    results, study = grid.results, grid.study
    lines = {figure.name: lines_of(figure, results) for figure in study.figures}
    return Findings(
        study=study.name,
        asked=len(grid.runs),
        missing=_named(grid.missing),
        figures=tuple((figure, lines[figure.name]) for figure in study.figures),
        verdict=study.verdict(lines) if results else Verdict("Nothing is there yet."),
        results=tuple(results),
    )


def _named(runs: Sequence[GridRun]) -> tuple[str, ...]:
    """Each cell with its seeds."""
    seeds: dict[str, list[str]] = defaultdict(list)
    for run in runs:
        seeds[run.cell.label].append(str(run.recipe.train.seed))
    return tuple(f"{label} (seed {', '.join(some)})" for label, some in seeds.items())


def lines_of(figure: Figure, results: Sequence[Result]) -> Lines:
    """Mean of the domains within a seed, then median and range over the seeds."""
    seeds: dict[str, dict[int | str, dict[int, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for result in results:
        for point in result.points:
            if point.figure == figure.name:
                seeds[point.line][point.x][result.seed].append(point.value)
    return {
        line: {x: spread([statistics.fmean(some) for some in places[x].values()]) for x in _ordered(places)}
        for line, places in seeds.items()
    }


def _ordered(places: Iterable[int | str]) -> list[int | str]:
    """Numbers rise; words stay as they came."""
    return sorted(places, key=lambda x: x if isinstance(x, int) else 0)


def spread(values: Sequence[float]) -> Spread:
    """Median and range."""
    return Spread(statistics.median(values), min(values), max(values), len(values))
