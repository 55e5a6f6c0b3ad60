"""`foresay bench`: how fast is it?"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from foresay.cli.commands.options import Chosen, Model, Opening, Options, filled
from foresay.cli.given import Given
from foresay.cli.terminal import ERR, print_json, print_table
from foresay.cli.views.bars import bench_watching, calibration_watch, progress_bar
from foresay.cli.views.tables import bench_view
from foresay.evaluation.config import BenchConfig
from foresay.evaluation.plots import draw_costs, draw_speedups, require_matplotlib
from foresay.evaluation.speed.bench import Bench, bench
from foresay.model import MultiTokenModel

FEW = 2
"""Prompts of each embedded domain that `bench` decodes, or as many as its largest batch holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchCommand:
    """Measure speed and tokens per step beside transformers and plain decoding, in one interleaved run.

    Examples:
      foresay bench smollm2
      foresay bench smollm2 --layouts quadratic --masks 1 2 4 8 --dtype bfloat16
      foresay bench smollm2 --batch-sizes 1 4 16 --prompt-tokens 0 512 --plot pictures
      foresay bench my-adapter --prompts prompts.jsonl --json > bench.json
    """

    model: Model
    """Folder of a foresay model, smollm2 or nano."""
    full: bool = False
    """Measure 40 prompts a domain of 128 tokens instead of a few."""
    plot: Path | None = None
    """Folder for two pictures: speed-ups by batch size and layout, and what a step costs (needs matplotlib)."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    bench: BenchConfig = field(default_factory=BenchConfig)
    opening: Opening = field(default_factory=Opening)
    given: Options = field(default_factory=Given)

    def run(self) -> int:
        """Measure, print and draw."""
        if self.plot is not None:
            require_matplotlib()
        model = self.opening.open(self.model)
        config = filled(self.bench, self.given, max_new_tokens=128) if self.full else self.bench
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
        sizes = [(result.batch_size, round(result.prompt_tokens)) for result in measured.results]
        with progress_bar(ERR) as bar:
            curves = model.step_costs(sizes, calibration_watch(bar))
        ERR.print(f"drawn: {draw_speedups(measured, folder)}, {draw_costs(curves, folder)}")
