"""Pictures of measurements, with matplotlib (the extra `plot`)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foresay.decoding.step_costs import Curve
from foresay.evaluation.speed.bench import Bench
from foresay.evaluation.studies.findings import Findings
from foresay.evaluation.studies.study import Figure, Lines
from foresay.foundation.errors import ConfigError, in_words

SPEEDUPS, COSTS = "speedups.png", "costs.png"
MARKERS = {"plain": "o", "linear": "D", "quadratic": "s"}
"""Of the points of a layout; others get a triangle."""
LINES = ("-", "--", ":", "-.")
POINTS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">")
COLOURS = (
    "#3f90da",
    "#bd1f01",
    "#ffa90e",
    "#832db6",
    "#94a4a2",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
"""Ten series, told apart by colour-blind eyes too (Petroff, arXiv 2107.02270); a point of its own for each beside."""
WIDEST = 3.0
"""Speed-up at which the colours of the heat map are deepest, and its inverse."""


def require_matplotlib() -> Any:
    """matplotlib's `pyplot`, set to draw into files. Raises ConfigError where it is not installed."""
    try:
        import matplotlib  # noqa: PLC0415
        from matplotlib import pyplot  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "pictures are drawn with matplotlib, and that is not installed here; pip install 'foresay[plot]'"
        ) from error
    matplotlib.use("agg")
    return pyplot


def draw_speedups(bench: Bench, folder: Path) -> Path:
    """Write `speedup_figure` to a file in `folder`."""
    pyplot = require_matplotlib()
    return _saved(pyplot, speedup_figure(pyplot, bench), folder / SPEEDUPS)


def speedup_figure(pyplot: Any, bench: Bench) -> Any:
    """Heat map of the speed-up over plain decoding, decoder by batch size, one for each prompt length."""
    tables = {length: bench.speedups(length) for length in bench.lengths}
    labels = list(dict.fromkeys(label for table in tables.values() for row in table.values() for label in row))
    sizes = list(dict.fromkeys(size for table in tables.values() for size in table))
    # Decoders downwards and sizes across: there are many of the former, and a phone is narrow.
    shape = (1.8 + 0.6 * max(len(sizes), 3), 1.3 + (0.5 + 0.35 * len(labels)) * len(tables))
    figure, panels = pyplot.subplots(len(tables), figsize=shape, squeeze=False, layout="constrained", sharex=True)
    for panel, (length, table) in zip(panels[:, 0], tables.items()):
        _heat_map(panel, [[table[size].get(label) for size in sizes] for label in labels])
        panel.set_title(f"prompts of {length} tokens" if length else "prompts as they are", fontsize="medium")
        panel.set_yticks(range(len(labels)), labels)
        panel.set_xticks(range(len(sizes)), sizes)
    panels[-1, 0].set_xlabel("batch size")
    figure.suptitle(f"Speed over plain decoding\n{bench.results[0].dtype}, mean of the domains", fontsize="medium")
    return figure


def _heat_map(panel: Any, rows: list[list[float | None]]) -> None:
    """Cells with their figures; blue is faster than plain, red slower, on a logarithmic scale."""
    logs = [[math.nan if value is None else math.log(value) for value in row] for row in rows]
    panel.imshow(logs, cmap="RdBu", vmin=-math.log(WIDEST), vmax=math.log(WIDEST), aspect="auto")
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if value is not None:
                colour = "white" if abs(math.log(value)) > 0.5 * math.log(WIDEST) else "#111111"
                panel.text(x, y, f"{value:.2f}", ha="center", va="center", color=colour)


def draw_costs(curves: Sequence[Curve], folder: Path) -> Path:
    """Write `cost_figure` to a file in `folder`."""
    pyplot = require_matplotlib()
    return _saved(pyplot, cost_figure(pyplot, curves), folder / COSTS)


def cost_figure(pyplot: Any, curves: Sequence[Curve]) -> Any:
    """Milliseconds of a step against the rows of a sequence: a colour for each batch size, a line for each context."""
    sizes = list(dict.fromkeys(curve.batch_size for curve in curves))
    contexts = list(dict.fromkeys(curve.context_tokens for curve in curves))
    figure, panel = pyplot.subplots(figsize=(5, 4.5), layout="constrained")
    for curve in curves:
        colour, line = f"C{sizes.index(curve.batch_size)}", LINES[contexts.index(curve.context_tokens) % len(LINES)]
        points = sorted((cost.rows, 1000 * cost.drafted, entry.layout) for entry, cost in curve.costs.items())
        name = f"batch {curve.batch_size}, {curve.context_tokens} tokens cached"
        panel.plot([x for x, *_ in points], [y for _, y, _ in points], color=colour, linestyle=line, label=name)
        for x, y, layout in points:
            panel.scatter(x, y, color=colour, marker=MARKERS.get(layout, "^"), zorder=3)
    for layout in dict.fromkeys(entry.layout for curve in curves for entry in curve.costs):
        panel.scatter([], [], color="grey", marker=MARKERS.get(layout, "^"), label=layout)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.grid(alpha=0.3)
    panel.set_xlabel("rows of a sequence in a step")
    panel.set_ylabel("milliseconds of a step")
    figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    return figure


def draw_study(found: Findings, folder: Path) -> list[Path]:
    """Each figure of a study as SVG: medians over the seeds as lines, their range as bars."""
    return [_draw_lines(found, figure, lines, folder) for figure, lines in found.figures if lines]


def _draw_lines(found: Findings, figure: Figure, lines: Lines, folder: Path) -> Path:
    pyplot = require_matplotlib()
    columns = list(dict.fromkeys(x for line in lines.values() for x in line))
    words = any(isinstance(x, str) for x in columns)
    drawing, panel = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for number, (label, line) in enumerate(lines.items()):
        # Words have no order to draw a line through: their points stand side by side.
        beside = 0.7 * (number / len(lines) - 0.5)
        across = [columns.index(x) + beside for x in line] if words else list(line)
        middle = [place.median for place in line.values()]
        reach = [(place.median - place.least, place.most - place.median) for place in line.values()]
        style = "none" if words else LINES[number % len(LINES)]
        marker, colour = POINTS[number % len(POINTS)], COLOURS[number % len(COLOURS)]
        settings = {"marker": marker, "linestyle": style, "color": colour, "capsize": 3}
        panel.errorbar(across, middle, yerr=list(zip(*reach)), label=label, **settings)
    if words:
        panel.set_xticks(range(len(columns)), columns)
    panel.set_xlabel(figure.x)
    panel.set_ylabel(figure.y)
    panel.grid(alpha=0.3)
    panel.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    panel.set_title(figure.title + (f"\nPARTIAL: {len(found.results)} of {found.asked} cells" if found.missing else ""))
    return _saved(pyplot, drawing, folder / f"{found.study}-{figure.name}.svg")


def _saved(pyplot: Any, figure: Any, path: Path) -> Path:
    try:
        with in_words(ConfigError, f"{path} cannot be drawn", "give --plot a folder that can be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150)
    finally:
        pyplot.close(figure)
    return path
