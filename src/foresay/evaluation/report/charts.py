"""The charts of a report: SVG in the colours of the page around it, told apart without colour too."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from foresay.evaluation.plots import COLOURS, POINTS, cost_figure, require_matplotlib, speedup_figure
from foresay.evaluation.report.result_files import ResultFiles
from foresay.evaluation.speed.bench import RATIO_RULE

SIZE = (4.8, 3.6)
"""Inches: small, so that text is readable where a phone shrinks the picture."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One picture."""

    title: str
    note: str
    svg: str
    """Markup, safe to embed."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    x: tuple[float, ...] | tuple[str, ...]
    y: tuple[float, ...]
    band: tuple[tuple[float, float], ...] = ()
    """Interval of each point."""
    dashed: bool = False


def charts(run: ResultFiles) -> list[Chart]:
    """Every chart that the run has figures for."""
    pyplot = require_matplotlib()
    made = []
    with pyplot.rc_context(_style(pyplot)):
        for title, note, lines, axes in (_tokens_per_step(run), _acceptance(run), _losses(run), *_studies(run)):
            if lines:
                made.append(Chart(title, note, _svg(pyplot, _lines(pyplot, lines, axes), title)))
        made += [_speedups(pyplot, bench) for bench in run.benches if bench.speedups(bench.lengths[0])]
        if run.curves:
            note = "Milliseconds of a whole step, drafting included, measured on this machine."
            made.append(Chart("What a step costs", note, _svg(pyplot, cost_figure(pyplot, run.curves), "costs")))
    return made


Drawn = tuple[str, str, list[Line], tuple[str, str]]
"""Title, note, lines, labels of the axes."""


def _tokens_per_step(run: ResultFiles) -> Drawn:
    lines, layouts = [], set[str]()
    for content in run.of("evaluation"):
        layouts.add(content.get("provenance", {}).get("settings", {}).get("layout", "quadratic"))
        for domain, rows in _by(content["domains"], "domain"):
            rates = [row["whole"] for row in rows]
            known = [rate for rate in rates if rate["low"] is not None]
            band = tuple((rate["low"], rate["high"]) for rate in known) if len(known) == len(rates) else ()
            masks = tuple(row["masks"] for row in rows)
            lines.append(Line(domain, masks, tuple(rate["value"] for rate in rates), band))
    note = f"Decoded {' and '.join(sorted(layouts))}; bands are bootstrap intervals over prompts (95 %)."
    if not lines:
        note = "Decoded quadratic."
        for content in run.of("bench"):
            drafted = [row for row in content["results"] if row["decoder"] == "quadratic"]
            for domain, rows in _by(drafted, "domain"):
                figures = {row["masks"]: row["tokens_per_step"] for row in rows}
                lines.append(Line(domain, tuple(figures), tuple(figures.values())))
    return "Tokens per step by domain", note, lines, ("masks a block", "tokens per step")


def _acceptance(run: ResultFiles) -> Drawn:
    lines = []
    for content in run.of("evaluation"):
        for domain, rows in _by(content["domains"], "domain"):
            entries = rows[-1]["acceptance"]
            places = tuple(entry["position"] for entry in entries)
            for name, dashed in (("unconditional", False), ("conditional", True)):
                lines.append(Line(domain, places, tuple(entry[name] for entry in entries), dashed=dashed))
    if not lines:
        for content in run.of("bench"):
            drafted = [row for row in content["results"] if row["decoder"] == "quadratic"]
            for domain, rows in _by(drafted, "domain"):
                shares = tuple(rows[-1]["acceptance_per_position"])
                lines.append(Line(domain, tuple(range(1, len(shares) + 1)), shares))
    note = "Share of steps that keep the draft: solid of all steps, dashed of those that kept the one before."
    return "Acceptance by position", note, lines, ("position of the draft", "kept")


def _losses(run: ResultFiles) -> Drawn:
    lines = []
    for content in run.of("training"):
        curve = content.get("losses", [])
        if curve:
            lines.append(Line("loss", tuple(row["step"] for row in curve), tuple(row["total"] for row in curve)))
    return "Training", "Loss by step.", lines, ("step", "loss")


def _studies(run: ResultFiles) -> Iterator[Drawn]:
    """Every figure of every study."""
    for content in run.of("study"):
        for figure, lines in content["figures"]:
            seeds = max((place["seeds"] for line in lines.values() for place in line.values()), default=0)
            note = f"Study {content['study']}: medians over seeds ({seeds} at most), bands their range."
            drawn = [_spread(name, line) for name, line in lines.items()]
            yield figure["title"], note + (" PARTIAL." if content["missing"] else ""), drawn, (figure["x"], figure["y"])


def _spread(name: str, line: dict[str, dict[str, float]]) -> Line:
    """JSON has only words for keys: numbers are read back where all are some."""
    try:
        x: tuple[float, ...] | tuple[str, ...] = tuple(float(key) for key in line)
    except ValueError:
        x = tuple(line)
    band = tuple((place["least"], place["most"]) for place in line.values())
    return Line(name, x, tuple(place["median"] for place in line.values()), band)


def _speedups(pyplot: Any, bench: Any) -> Chart:
    note = f"Geometric mean of the domains; blue is faster than plain decoding, red slower. {RATIO_RULE}"
    return Chart("Speed by batch size and layout", note, _svg(pyplot, speedup_figure(pyplot, bench), "speed"))


def _by(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rows by a key, each group in order of masks."""
    ordered = sorted(rows, key=lambda row: int(row["masks"]))
    return [(name, [row for row in ordered if row[key] == name]) for name in dict.fromkeys(row[key] for row in rows)]


def _lines(pyplot: Any, lines: Sequence[Line], axes: tuple[str, str]) -> Any:
    figure, panel = pyplot.subplots(figsize=SIZE, layout="constrained")
    names = list(dict.fromkeys(line.name for line in lines))
    for line in lines:
        place = names.index(line.name)
        colour, marker = COLOURS[place % len(COLOURS)], POINTS[place % len(POINTS)]
        marks = {"color": colour, "marker": marker, "markersize": 4}
        label = None if line.dashed else line.name
        # Words have no order to draw a line through.
        style = "none" if isinstance(line.x[0], str) else "--" if line.dashed else "-"
        panel.plot(line.x, line.y, linestyle=style, label=label, **marks)
        if line.band and style == "none":
            panel.vlines(line.x, *zip(*line.band), color=colour)
        elif line.band:
            panel.fill_between(line.x, *zip(*line.band), color=colour, alpha=0.15, linewidth=0)
    panel.set_xlabel(axes[0])
    panel.set_ylabel(axes[1])
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside lower center", ncols=3)
    return figure


def _style(pyplot: Any) -> dict[str, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "foresay",
        "font.family": "sans-serif",
        "axes.prop_cycle": pyplot.cycler(color=COLOURS),
        "legend.framealpha": 0,
    }


def _svg(pyplot: Any, figure: Any, name: str) -> str:
    """Markup alone; black becomes the colour of the text around it, and ids are told apart by `name`."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    markup = out.getvalue()
    markup = markup[markup.index("<svg") :].replace("#000000", "currentColor")
    markup = re.sub(r"<metadata>.*?</metadata>", "", markup, flags=re.S)
    own = re.sub(r"\W", "", name)
    markup = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{own}-", markup)
    # The page gives it its width.
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg ([^>]*?)height="[^"]*"', r"<svg \1\2", markup, count=1
    )
