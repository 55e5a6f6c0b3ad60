"""A study as tables."""

from rich.console import Group, RenderableType
from rich.text import Text

from foresay.cli.views.tables import plain_table
from foresay.evaluation.studies.findings import Findings
from foresay.evaluation.studies.study import Figure, Lines, Spread


def study_view(found: Findings) -> Group:
    """A table for each figure, the verdict, and what is missing."""
    parts: list[RenderableType] = []
    for figure, lines in found.figures:
        if lines:
            parts += [_figure_table(figure, lines), ""]
    parts.append(Text(found.verdict.sentence))
    if found.partial:
        parts.append(Text(found.partial, style="yellow"))
    return Group(*parts)


def _figure_table(figure: Figure, lines: Lines) -> RenderableType:
    seeds = max(place.seeds for line in lines.values() for place in line.values())
    title = figure.title if seeds == 1 else f"{figure.title}; median of up to {seeds} seeds, below it their range"
    columns = list(dict.fromkeys(x for line in lines.values() for x in line))
    table = plain_table(title, figure.x, *map(str, columns))
    for label, line in lines.items():
        table.add_row(label, *(_place(line[x], figure.digits) if x in line else "" for x in columns))
    return table


def _place(place: Spread, digits: int) -> str:
    median, least, most = (f"{value:,.{digits}f}" for value in (place.median, place.least, place.most))
    return median if least == most else f"{median}\n{least}-{most}"
