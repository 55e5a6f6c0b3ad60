"""Draw the figures of docs/concepts from the code and from result files that are in the repository.

python docs/make_figures.py [FOLDER]
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from foresay.evaluation.plots import COLOURS, require_matplotlib
from foresay.models.layout.layout import Layout

FOLDER = Path(__file__).parent / "figures"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
SOURCES: dict[str, tuple[str, ...]] = {
    "layouts": (),
    "lossless": ("lossless/certificate-float32.json", "lossless/certificate-bfloat16.json"),
    "costs": ("seconds/smollm2-costs.json",),
    "seconds": ("seconds/smollm2-seconds.json",),
}
"""The files that each figure is drawn from."""
SHOWN = (("plain", Layout.plain(1)), ("linear", Layout.linear(3, 2)), ("quadratic", Layout.quadratic(3, 2)))
"""One step of three layouts with two drafts and two masks; plain has neither."""
pyplot = require_matplotlib()
pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "foresay", "font.size": 9})


def read(path: str) -> Any:
    """A result file."""
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))


def row_names(layout: Layout) -> list[str]:
    """What stands in each row: the newest token x, drafts d1, d2, and masks m1, m2 with what they stand after."""
    real = ["x", *(f"d{draft}" for draft in range(1, layout.real))]
    return real + [f"m{j} after {real[block.anchor]}" for block in layout.blocks for j in range(1, block.size + 1)]


def layouts() -> Any:
    """Which row attends to which, within one call."""
    rows = [layout.rows for _, layout in SHOWN]
    figure, panels = pyplot.subplots(
        1, 3, figsize=(9, 3.9), width_ratios=[max(n, 2) for n in rows], layout="constrained"
    )
    for panel, (name, layout) in zip(panels, SHOWN):
        drawing, names = layout.draw(torch.device("cpu")), row_names(layout)
        gated = torch.arange(layout.rows).ge(layout.real).float()[:, None]
        panel.imshow((drawing.visible * (1 + gated)).numpy(), cmap=_three_colours(), vmin=0, vmax=2)
        panel.set_xticks(range(layout.rows), names, rotation=90)
        panel.set_yticks(range(layout.rows), names)
        panel.set_xticks([x - 0.5 for x in range(1, layout.rows)], minor=True)
        panel.set_yticks([y - 0.5 for y in range(1, layout.rows)], minor=True)
        panel.grid(which="minor", color="white")
        panel.tick_params(which="both", length=0)
        panel.set_title(f"{name}: {layout.rows} row{'s' if layout.rows > 1 else ''}")
    panels[0].set_ylabel("row that attends")
    return figure


def _three_colours() -> Any:
    from matplotlib.colors import ListedColormap  # noqa: PLC0415

    return ListedColormap(["#eeeeee", COLOURS[0], COLOURS[1]])


def lossless() -> Any:
    """Answers that are identical, tie or differ, for each layout and batch size of two certificates."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    for panel, path in zip(panels, SOURCES["lossless"]):
        certificate = read(path)
        counts = certificate["counts"]
        labels, left = [f"{count['layout']}, batch {count['batch_size']}" for count in counts], [0] * len(counts)
        for kind, colour in (("identical", COLOURS[2]), ("ties", COLOURS[4]), ("bugs", COLOURS[1])):
            widths = [count[kind] for count in counts]
            panel.barh(labels, widths, left=left, color=colour, label="flagged" if kind == "bugs" else kind)
            left = [start + width for start, width in zip(left, widths)]
        same, ties, bugs = certificate["identical"], certificate["ties"], certificate["bugs"]
        panel.set_title(f"{certificate['dtype']}: {same} identical, {ties} ties, {bugs} flagged")
        panel.set_xlabel("answers")
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def costs() -> Any:
    """What a step costs beside the tokens that it must give to be worth that."""
    entries = read(SOURCES["costs"][0])["curves"][0]["entries"]
    labels = [_entry_name(found["entry"]) for found in entries]
    times = [found["times_plain"] for found in entries]
    figure, panel = pyplot.subplots(figsize=(7, 3), layout="constrained")
    colours = [COLOURS[0] if found["entry"]["masks"] else COLOURS[2] for found in entries]
    bars = panel.barh(labels, times, color=colours)
    panel.bar_label(bars, fmt="%.2f", padding=3)
    panel.axvline(1, color="#555555", linewidth=1)
    panel.set_xlabel("plain steps that it costs, and so the tokens that it must give to be worth it")
    panel.set_xlim(0, max(times) * 1.1)
    panel.invert_yaxis()
    return figure


def _entry_name(entry: dict[str, Any]) -> str:
    if entry["masks"]:
        return f"{entry['layout']}, {entry['masks']} mask{'s' if entry['masks'] > 1 else ''}"
    return f"plain, {entry['lookup']} drafts looked up" if entry["lookup"] else "plain"


def seconds() -> Any:
    """Tokens a second of each decoder by domain, with the least and the most of the repeats."""
    results = read(SOURCES["seconds"][0])["results"]
    domains = list(dict.fromkeys(result["domain"] for result in results))
    decoders = list(dict.fromkeys((result["decoder"], result["masks"]) for result in results))
    figure, panel = pyplot.subplots(figsize=(8, 3.4), layout="constrained")
    width = 0.8 / len(decoders)
    for n, (decoder, masks) in enumerate(decoders):
        found = {r["domain"]: r for r in results if (r["decoder"], r["masks"]) == (decoder, masks)}
        heights = [found[domain]["tokens_per_second"] for domain in domains]
        least, most = zip(*(found[domain]["tokens_per_second_spread"] for domain in domains))
        errors = [[h - low for h, low in zip(heights, least)], [high - h for h, high in zip(heights, most)]]
        places = [x + (n - (len(decoders) - 1) / 2) * width for x in range(len(domains))]
        label = f"{decoder}, {masks} masks" if decoder == "quadratic" else decoder
        panel.bar(places, heights, width, yerr=errors, color=COLOURS[n], label=label, error_kw={"linewidth": 0.8})
    panel.set_xticks(range(len(domains)), domains)
    panel.set_ylabel("tokens a second")
    panel.legend(ncols=2)
    return figure


MAKERS: dict[str, Callable[[], Any]] = {
    "layouts": layouts,
    "lossless": lossless,
    "costs": costs,
    "seconds": seconds,
}


def main(folder: Path) -> None:
    """Draw all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, maker in MAKERS.items():
        figure = maker()
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
