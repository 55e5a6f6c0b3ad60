"""`foresay bench` and `foresay calibrate`: what it costs and gains here."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from foresay.benchmark import Bench, bench
from foresay.config import (
    require,
)
from foresay.decoding.calibrate import SECONDS, calibrate, curve_for, forecast, known_acceptance, rounded
from foresay.model import MultiTokenModel
from foresay.plot import draw_costs, draw_speedups, require_matplotlib
from foresay.provenance import provenance
from foresay.stand import BenchConfig
from foresay.terminal import ERR, OUT, print_json, print_table
from foresay.verbs.opening import Chosen, Model, Opening, filled
from foresay.view.bars import bench_watching, calibration_watch, progress_bar
from foresay.view.tables import bench_view, curve_table

FEW = 2
"""Prompts of each embedded domain that `bench` decodes, or as many as its largest batch holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCommand:
    """Measure speed and tokens per step beside transformers and plain decoding, in one interleaved run.

    Examples:
      foresay bench nano
      foresay bench nano --layouts quadratic --masks 1 2 4 8 --dtype bfloat16
      foresay bench nano --batch-sizes 1 2 4 8 16 --prompt-tokens 0 512 --plot pictures
      foresay bench my-adapter --prompts prompts.jsonl --json > bench.json
    """

    model: Model
    """Folder of a foresay model, or nano."""
    full: bool = False
    """Measure 40 prompts a domain of 128 tokens instead of a few."""
    plot: Path | None = None
    """Folder for two pictures: speed-ups by batch size and layout, and what a step costs (needs matplotlib)."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    bench: BenchConfig = field(default_factory=BenchConfig)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """Measure, print and draw."""
        if self.plot is not None:
            require_matplotlib()
        model = self.opening.open(self.model)
        config = filled(self.bench, max_new_tokens=128) if self.full else self.bench
        prompts = self.chosen.load(model, 40 if self.full else max(FEW, *config.batch_sizes), "test")
        with progress_bar(ERR) as bar:
            measured = bench(model, prompts, config, bench_watching(bar))
        if self.json:
            print_json(asdict(measured))
        else:
            print_table(bench_view(measured))
        if self.plot is not None:
            self._draw(model, measured, self.plot)
        return 0

    def _draw(self, model: MultiTokenModel, measured: Bench, folder: Path) -> None:
        cells = dict.fromkeys(
            rounded(model.core, result.batch_size, round(result.prompt_tokens)) for result in measured.results
        )
        with progress_bar(ERR) as bar:
            curves = [curve_for(model.core, *cell, calibration_watch(bar)) for cell in cells]
        ERR.print(f"drawn: {draw_speedups(measured, folder)}, {draw_costs(curves, folder)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateCommand:
    """Measure anew what a step costs here: what `--layout planned` chooses by.

    Batch sizes and context lengths are rounded up to those that are kept: powers of two; 128, 512, 2048, 8192 tokens.

    Examples:
      foresay calibrate nano
      foresay calibrate my-adapter --batch-sizes 1 8 --contexts 512 2048 --dtype bfloat16
      foresay calibrate my-adapter --json > costs.json
    """

    model: Model
    """Folder of a foresay model, or nano."""
    batch_sizes: tuple[int, ...] = (1,)
    """Prompts decoded together."""
    contexts: tuple[int, ...] = (128,)
    """Tokens cached before a step."""
    seconds: float = SECONDS
    """Most time for each batch size and context length."""
    json: bool = False
    """Print one JSON object."""
    opening: Opening = field(default_factory=Opening)

    def __post_init__(self) -> None:
        require(self.seconds > 0, f"seconds is {self.seconds}; give a positive time")
        for name in ("batch_sizes", "contexts"):
            values = getattr(self, name)
            require(min(values, default=0) >= 1, f"{name} is {values}; give one or more numbers from 1 up")

    def run(self) -> int:
        """Measure, keep, print."""
        model = self.opening.open(self.model)
        core = model.core
        cells = dict.fromkeys(rounded(core, size, length) for size in self.batch_sizes for length in self.contexts)
        with progress_bar(ERR) as bar:
            curves = [calibrate(core, *cell, self.seconds, calibration_watch(bar)) for cell in cells]
        known = known_acceptance(core)
        if self.json:
            origin = provenance(model=self.model, **model.described)
            content = [
                {"batch_size": curve.batch_size, "context_tokens": curve.context_tokens}
                | {"entries": [asdict(found) for found in forecast(curve, known)]}
                for curve in curves
            ]
            print_json({"curves": content, "acceptance": known, "provenance": origin})
            return 0
        for curve in curves:
            print_table(curve_table(curve, forecast(curve, known)))
            OUT.print()
        shares = ", ".join(f"{share:.0%}" for share in known)
        told = "as training left it" if core.acceptance else "assumed, for training left none"
        OUT.print(f"< is what planned begins with.\nDrafts kept, by position, {told}: {shares}.", highlight=False)
        return 0
