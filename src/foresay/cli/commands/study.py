"""`foresay study`: the paper's figures, and a grid of ours, on any base."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from foresay.cli.commands.options import Chosen, Options, Threaded, tell_loaded
from foresay.cli.given import Given
from foresay.cli.terminal import ERR, print_json, print_table
from foresay.cli.views.bars import progress_bar
from foresay.cli.views.study import study_view
from foresay.data.config import DataConfig
from foresay.evaluation.config import HarnessConfig
from foresay.evaluation.plots import draw_study, require_matplotlib
from foresay.evaluation.studies import study_called
from foresay.evaluation.studies.findings import Findings, findings
from foresay.evaluation.studies.gated_lora import GATE
from foresay.evaluation.studies.grid import Grid, GridRun, check_cells, check_folder, grid_of
from foresay.evaluation.studies.inputs import StudyInputs
from foresay.evaluation.studies.study import STARTS, Cell, Study
from foresay.evaluation.task_quality import check_tasks
from foresay.foundation.errors import ConfigError, require, require_at_least
from foresay.training.config import TrainConfig
from foresay.training.loop.progress import Progress
from foresay.training.recipe import Recipe
from foresay.training.train import MAY_CHANGE, open_fresh

FEW = 8
"""Prompts of each embedded domain that are decoded."""
NOT_TAKEN = (MAY_CHANGE - {"chunk_anchors"}) | {"seed", "pack"}
"""Settings of training that mean nothing here: cells leave no adapters, seeds are `--seeds`, and one pass packs no
documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCommand(Threaded):
    """Train and measure a named grid: ladder, rank, gate, guess (paper A's figures 7, 8, 6, 1) or losses (ours).

    Every cell that is done stays in the folder; the same command, started again, runs only what is missing. Figures are
    medians over the seeds, with their range.

    Examples:
      foresay study ladder smollm2 --data chats.jsonl --out ladder --steps 300 --plot
      foresay study gate smollm2 --data chats.jsonl --out gate --rank 16 --seeds 0
      foresay study gate my-base --data chats.jsonl --out gate --tasks arc_challenge --limit 200
      foresay study rank my-base --data chats.jsonl --out rank --cells "rank 1" "rank 128" --dtype bfloat16
      foresay study losses smollm2 --data chats.jsonl --out losses --per-domain 20 --json > losses.json
    """

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """Which one: ladder, rank, gate, guess or losses."""
    base: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BASE")]
    """The base: a folder, a GGUF file, a hub id, smollm2 or nano."""
    data: tuple[str, ...]
    """What to train on, as `foresay train` takes it."""
    out: Path
    """Folder for the results, one file for each cell and seed."""
    cells: tuple[str, ...] = ()
    """Run only these cells, by their labels; all when none is named."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of masks, LoRA, data order and anchors; held-out text is the same for all."""
    start: Literal["study", "paper", "default"] = "study"
    """What cells differ from: paper A's adapter and losses, our defaults, or what the `study` is made for (losses:
    default; the others: paper)."""
    num_masks: int = 0
    """Masks in a block; 0: as the start has it."""
    rank: int = 0
    """Rank of the gated LoRA; 0: as the start has it."""
    max_new_tokens: int = 64
    """Most tokens of an answer."""
    plot: bool = False
    """Draw each figure into the folder, as SVG (needs matplotlib)."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    train: TrainConfig = field(default_factory=TrainConfig)
    reading: DataConfig = field(default_factory=DataConfig)
    harness: HarnessConfig = field(default_factory=HarnessConfig)
    given: Options = field(default_factory=Given)

    def __post_init__(self) -> None:
        require_at_least(self, 0, "num_masks", "rank")
        require_at_least(self, 1, "max_new_tokens")
        require(bool(self.seeds) and min(self.seeds) >= 0, f"seeds are {self.seeds}; give one or more, of 0 or more")
        for name in self.given.among(sorted(NOT_TAKEN)):
            flag, cure = f"--{name.replace('_', '-')}", "give --seeds" if name == "seed" else "leave it out"
            raise ConfigError(f"{flag} means nothing to a study; {cure}")

    def run(self) -> int:
        """Run what is missing, print what is there."""
        study = study_called(self.study)
        if self.harness.tasks:
            require(study is GATE, f"tasks stand beside the study gate, not beside {study.name}; leave --tasks out")
            check_tasks(self.harness)
        start = self._start(study)
        check_cells(study, start, self.cells)
        check_folder(self.out, study.name)
        if self.plot:
            require_matplotlib()
        self.use_threads()
        recipe = Recipe(self.base, self.data, self.out, start.mtp, start.losses, self.train, self.reading)
        model = open_fresh(recipe)
        tell_loaded(model)
        material = StudyInputs.read(recipe, model, self.chosen.load(model, FEW, "test"), self.max_new_tokens)
        material = replace(material, harness=self.harness)
        grid = grid_of(study, start, tuple(dict.fromkeys(self.seeds)), recipe, material)
        try:
            self._run(grid)
        except KeyboardInterrupt:
            self._show(findings(grid))
            raise
        found = findings(grid)
        self._show(found)
        return 0 if found.verdict.holds else 1

    def _start(self, study: Study) -> Cell:
        mtp, losses = STARTS[study.start if self.start == "study" else self.start]
        given = {name: getattr(self, name) for name in ("num_masks", "rank") if getattr(self, name)}
        return Cell(label="start", mtp=replace(mtp, **given), losses=losses, train=self.train)

    def _run(self, grid: Grid) -> None:
        ERR.print(f"{len(grid.results)} of {len(grid.runs)} cells are done, {len(grid.wanted(self.cells))} are to run")
        with progress_bar(ERR) as bar:
            task = bar.add_task(grid.study.name, total=None)

            def watch(run: GridRun, progress: Progress) -> None:
                bar.update(task, description=run.name, completed=progress.step, total=run.recipe.train.steps)

            for done in grid.run(watch, self.cells):
                ERR.print(
                    f"{done.label}, seed {done.seed}: {done.seconds:.0f} s, loss {done.loss:.3f}", highlight=False
                )

    def _show(self, found: Findings) -> None:
        if self.json:
            print_json(asdict(found))
        else:
            print_table(study_view(found))
        if self.plot:
            for path in draw_study(found, self.out):
                ERR.print(f"drawn: {path}")
