"""Small models with one head or several, trained alike: a grid whose cells are kept on disk, and its picture."""

import hashlib
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from foresay.evaluation.plots import require_matplotlib
from foresay.foundation.files import write_json
from foresay.foundation.provenance import provenance
from foresay.model import MultiTokenModel
from foresay.models.config import HeadsConfig
from foresay.training.config import PretrainConfig
from foresay.training.pretrain import pretrain
from foresay.training.recipe import PretrainRecipe
from foresay.training.runs.pretrain_run import PretrainUpdate

PACE: dict[str, Any] = {"optimizer": "muon", "learning_rate": 3e-3, "tracker": "none"}
"""What all trainings here share."""
Precision = Literal["float32", "bfloat16"]
SIZES = {
    "0.3M": (64, 6, 4),
    "1M": (128, 6, 4),
    "3M": (256, 4, 8),
    "10M": (384, 6, 8),
    "1M-deep": (96, 10, 4),
    "3M-deep": (160, 10, 4),
}
"""Width, layers with those of the heads, attention heads: about the paper's smallest (table S14), one below them, and
two deep ones, so that a trunk is left below 8 heads."""
Values = Mapping[str, Mapping[str, float]]
"""By line, then by place along the bottom."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One training."""

    size: str
    heads: int
    seed: int

    @property
    def name(self) -> str:
        """For people, and of its file."""
        return f"{self.size}-n{self.heads}-seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Experiment:
    """What all cells share."""

    data: Path
    out: Path
    tokenizer: str
    train: PretrainConfig
    measure: Callable[[MultiTokenModel], Values]
    replicated: bool = False
    measuring: str = ""
    """What `measure` depends on."""

    @property
    def key(self) -> str:
        """Hash of what the cells depend on, beside their own names."""
        said = json.dumps(
            {
                **asdict(self.train),
                "tokenizer": self.tokenizer,
                "replicated": self.replicated,
                "measuring": self.measuring,
            }
        )
        return hashlib.sha256(said.encode() + self.data.read_bytes()).hexdigest()[:12]


def cells(sizes: Sequence[str], heads: Sequence[int], seeds: Sequence[int]) -> list[Cell]:
    """The first seed of all, then the next."""
    return [Cell(size, n, seed) for seed in seeds for size in sizes for n in heads]


def design(cell: Cell, folder: Path, context: int) -> Path:
    """The config of a cell's model: a Llama whose tables of tokens are not tied (paper B, 4.1)."""
    width, layers, heads = SIZES[cell.size]
    said = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": 8 * width // 3 // 16 * 16,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
    }
    path = folder / f"{cell.size}.json"
    write_json(path, said)
    return path


def run_all(wanted: Sequence[tuple[Experiment, Cell]]) -> list[dict[str, Any]]:
    """What came out of each cell; interrupted, of those that are done."""
    found = []
    try:
        for experiment, cell in wanted:
            found.append(run(experiment, cell))
    except KeyboardInterrupt:
        print(f"stopped; {len(found)} of {len(wanted)} cells are kept", file=sys.stderr)
    return found


def run(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    """Train and measure a cell; or read what came out the last time with the same settings and data."""
    path = experiment.out / f"{cell.name}-{experiment.key}.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    heads = HeadsConfig(heads=cell.heads, replicated=experiment.replicated and cell.heads > 1)
    train = PretrainConfig(**asdict(experiment.train) | {"seed": cell.seed})
    folder = experiment.out / path.stem
    config = design(cell, experiment.out, train.length)
    recipe = PretrainRecipe(str(config), (experiment.data,), folder, experiment.tokenizer, heads, train, overwrite=True)
    print(f"{cell.name} ...", file=sys.stderr, flush=True)
    done = pretrain(recipe, told)
    found = {
        **asdict(cell),
        "parameters": done.parameters,
        "seconds": round(done.last.progress.seconds, 1),
        "loss": done.last.progress.losses.base,
        "bits_per_byte": done.last.bits_per_byte,
        "values": experiment.measure(MultiTokenModel.from_pretrained(folder)),
    }
    write_json(path, found)
    return found


def told(reading: PretrainUpdate) -> None:
    """A line now and then."""
    progress = reading.progress
    if progress.step % 200 == 0:
        print(
            f"  step {progress.step}: loss {progress.losses.base:.3f}, {reading.tokens_per_second:,.0f} tokens/s",
            file=sys.stderr,
            flush=True,
        )


def missing(whole: Mapping[str, tuple[int, int]]) -> str:
    """What of the whole recipe was left out, from what was run and what it has by default, by name."""
    short = [f"{run} of {default} {name}" for name, (run, default) in whole.items() if run < default]
    return f"PARTIAL: {', '.join(short)}" if short else ""


def summary(found: Sequence[dict[str, Any]], whole: Mapping[str, tuple[int, int]], **settings: Any) -> dict[str, Any]:
    """Every cell, and medians over seeds with their range, ready for JSON; a partial grid says so (`missing`)."""
    places = [
        (f"{line}, {cell['size']}, n = {cell['heads']}", place, value)
        for cell in found
        for line, values in cell["values"].items()
        for place, value in values.items()
    ]
    return {
        "partial": missing(whole),
        "median_least_most": over_seeds(places),
        "cells": list(found),
        "provenance": provenance(**settings),
    }


def over_seeds(found: Iterable[tuple[str, str, float]]) -> dict[str, dict[str, list[float]]]:
    """Median, least and most of what was found more than once for a line and a place along the bottom."""
    lines: dict[str, dict[str, list[float]]] = {}
    for line, place, value in found:
        lines.setdefault(line, {}).setdefault(place, []).append(value)
    return {
        line: {place: [statistics.median(v), min(v), max(v)] for place, v in places.items()}
        for line, places in lines.items()
    }


def plot(said: Mapping[str, Any], path: Path, title: str, x: str, y: str) -> None:
    """A line of medians for each size and number of heads, with bars of the range over seeds."""
    pyplot = require_matplotlib()
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for number, (line, values) in enumerate(said["median_least_most"].items()):
        middle, least, most = map(np.array, zip(*values.values()))
        style = {"color": f"C{number % 10}", "marker": "osD^v"[number % 5], "label": line, "capsize": 3}
        bars = [middle - least, most - middle]
        axes.errorbar(list(values), middle, bars, linestyle="--" if "1M" in line else "-", **style)
    axes.set(title=f"{title}\n{said['partial']}".strip(), xlabel=x, ylabel=y)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
