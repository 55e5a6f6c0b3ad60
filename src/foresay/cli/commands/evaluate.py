"""`foresay eval`: how much is drafted well, on which texts, and is the quality the base's own?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from foresay.cli.commands.options import Chosen, Model, Opening
from foresay.cli.terminal import ERR, OUT, print_table, tell_and_keep
from foresay.cli.views.bars import progress_bar
from foresay.cli.views.evaluation import evaluation_view, quality_table
from foresay.data.prompts import Prompt
from foresay.decoding.config import DecodeConfig
from foresay.evaluation.acceptance import Evaluation, check_evaluation, evaluate, origin
from foresay.evaluation.config import EvalConfig, HarnessConfig
from foresay.evaluation.task_quality import Quality, compare
from foresay.foundation.errors import require
from foresay.foundation.files import check_file
from foresay.model import MultiTokenModel


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalCommand:
    """Measure tokens per step by benchmark and domain, and, with --tasks, quality beside the base.

    Acceptance is counted twice from one decode: by paper A's protocol (at most 100 steps a prompt, tokens over steps)
    and on whole answers; intervals are bootstrapped over prompts (95 %). Tasks run in lm-evaluation-harness, on the
    base and on the accelerated model: strings of generate_until tasks, and all scores, must be the same.

    Examples:
      foresay eval smollm2
      foresay eval my-adapter --benchmarks math=gsm8k_test.jsonl knowledge=arc.jsonl safety=xstest.csv --out eval.json
      foresay eval my-adapter --benchmarks paper --per-domain 100 --masks 1 2 4 8
      foresay eval my-adapter --tasks arc_challenge gsm8k --limit 100 --no-acceptance
      foresay eval smollm2 --tasks my_task --include-path my-tasks
    """

    model: Model
    """Folder of a foresay model, smollm2 or nano."""
    full: bool = False
    """Take 40 prompts of each benchmark or domain instead of a few."""
    acceptance: bool = True
    """Count tokens per step; without it, tasks alone are run."""
    out: Path | None = None
    """File for the result as JSON, beside what is printed."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    harness: HarnessConfig = field(default_factory=HarnessConfig)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """0 when done, 1 where an answer or a score is not the base's."""
        require(self.acceptance or bool(self.harness.tasks), "nothing is to be done; give --tasks, or count acceptance")
        if self.out is not None:
            check_file(self.out)
        model = self.opening.open(self.model)
        # What cannot be shows before hours of work: prompts, then the harness's tasks.
        prompts = self._prompts(model) if self.acceptance else []
        quality = self._compare(model) if self.harness.tasks else None
        found = self._evaluate(model, prompts) if self.acceptance else Evaluation()
        if quality is not None:
            asked = asdict(self.harness) | {"include_path": str(self.harness.include_path or "")}
            found = replace(found, quality=quality, provenance=origin(model, self.evaluation, harness=asked))
        content = asdict(found) | {"sentence": None if quality is None else quality.sentence}
        tell_and_keep(content, None if self.json else lambda: _tell(found), self.out)
        return 1 if quality is not None and _differs(quality) else 0

    def _prompts(self, model: MultiTokenModel) -> list[Prompt]:
        prompts = self.chosen.load(model, 40 if self.full else 4, "test")
        check_evaluation(model, prompts, self.evaluation)
        return prompts

    def _evaluate(self, model: MultiTokenModel, prompts: Sequence[Prompt]) -> Evaluation:
        with progress_bar(ERR) as bar:
            counts = len(self.evaluation.masks) or model.drafts
            task = bar.add_task("decoding", total=len(prompts) * counts)
            return evaluate(model, prompts, self.evaluation, lambda answered: bar.advance(task, answered))

    def _compare(self, model: MultiTokenModel) -> Quality:
        decode = DecodeConfig(layout=self.evaluation.layout)
        return compare(model, self.harness, decode, lambda who: ERR.print(f"tasks on the {_PLACES[who]}"))


_PLACES = {"base": "base", "accelerated": "accelerated model"}


def _differs(quality: Quality) -> bool:
    return any(not task.agrees or task.identical < task.documents for task in quality.tasks)


def _tell(found: Evaluation) -> None:
    if found.rows:
        print_table(evaluation_view(found))
    if found.quality is not None:
        print_table(quality_table(found.quality))
        OUT.print(found.quality.sentence)
