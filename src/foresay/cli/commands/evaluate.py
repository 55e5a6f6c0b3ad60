"""`foresay eval`: how much is drafted well, on which texts, and is the quality the base's own?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from foresay.cli.commands.options import Chosen, Model, Opening
from foresay.cli.terminal import ERR, OUT, print_table, tell_and_keep
from foresay.cli.views.bars import progress_bar
from foresay.cli.views.evaluation import code_table, evaluation_view, quality_table
from foresay.data.prompts import Prompt
from foresay.decoding.config import DecodeConfig
from foresay.evaluation.acceptance import FEW, Evaluation, check_evaluation, evaluate, origin
from foresay.evaluation.code.pass_at_k import CodeQuality, count_passes, read_sets
from foresay.evaluation.code.problems import ProblemSet
from foresay.evaluation.config import CodeConfig, EvalConfig, HarnessConfig
from foresay.evaluation.task_quality import Quality, compare
from foresay.foundation.errors import require
from foresay.foundation.files import check_file
from foresay.model import MultiTokenModel


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalCommand:
    """Measure tokens per step by benchmark and domain, and, with --tasks or --code, quality beside the base.

    Acceptance is counted twice from one decode: by paper A's protocol (at most 100 steps a prompt, tokens over steps)
    and on whole answers; intervals are bootstrapped over prompts (95 %). Tasks run in lm-evaluation-harness, on the
    base and on the accelerated model: strings of generate_until tasks, and all scores, must be the same. Problems with
    tests (HumanEval, MBPP) are answered plainly and accelerated, the code is run in a sandbox, and pass@k is counted.

    Examples:
      foresay eval smollm2
      foresay eval my-adapter --benchmarks math=gsm8k_test.jsonl knowledge=arc.jsonl safety=xstest.csv --out eval.json
      foresay eval my-adapter --benchmarks paper --per-domain 100 --masks 1 2 4 8
      foresay eval my-adapter --tasks arc_challenge gsm8k --limit 100 --tasks-only
      foresay eval smollm2 --tasks my_task --include-path my-tasks
      foresay eval smollm2 --code humaneval.jsonl --code-answers 20 --pass-at 1 10 --code-temperatures 0.2 0.8
    """

    model: Model
    """Folder of a foresay model, smollm2 or nano."""
    full: bool = False
    """Take 40 prompts of each benchmark or domain instead of a few."""
    tasks_only: bool = False
    """Run tasks and problems alone, and count no tokens per step."""
    out: Path | None = None
    """File for the result as JSON, beside what is printed."""
    json: bool = False
    """Print one JSON object."""
    chosen: Chosen = field(default_factory=Chosen)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    harness: HarnessConfig = field(default_factory=HarnessConfig)
    code: CodeConfig = field(default_factory=CodeConfig)
    opening: Opening = field(default_factory=Opening)

    def run(self) -> int:
        """0 when done, 1 where an answer or a score is not the base's."""
        asked = not self.tasks_only or self.harness.tasks or self.code.code
        require(bool(asked), "--tasks-only was given without tasks; give --tasks or --code")
        if self.out is not None:
            check_file(self.out)
        model = self.opening.open(self.model)
        # What cannot be shows before hours of work: prompts, problems, then the harness's tasks.
        prompts = [] if self.tasks_only else self._prompts(model)
        problems = read_sets(model, self.code)
        quality = self._compare(model) if self.harness.tasks else None
        found = Evaluation() if self.tasks_only else self._evaluate(model, prompts)
        code = self._solve(model, problems) if problems else None
        if quality is not None or code is not None:
            found = replace(found, quality=quality, code=code, provenance=self._origin(model))
        tell_and_keep(_content(found), None if self.json else lambda: _tell(found), self.out)
        return 1 if _differs(found) else 0

    def _prompts(self, model: MultiTokenModel) -> list[Prompt]:
        prompts = self.chosen.load(model, 40 if self.full else FEW, "test")
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

    def _solve(self, model: MultiTokenModel, problems: Sequence[ProblemSet]) -> CodeQuality:
        with progress_bar(ERR) as bar:
            task = bar.add_task(
                "answering problems", total=self.code.total(sum(len(some.problems) for some in problems))
            )
            return count_passes(model, problems, self.code, lambda answers: bar.advance(task, answers))

    def _origin(self, model: MultiTokenModel) -> dict[str, Any]:
        """Provenance with the settings of the tasks and the problems."""
        harness = asdict(self.harness) | {"include_path": str(self.harness.include_path or "")}
        code = asdict(self.code) | {"code": [Path(source).name for source in self.code.code]}
        return origin(model, self.evaluation, harness=harness, code=code)


_PLACES = {"base": "base", "accelerated": "accelerated model"}


def _differs(found: Evaluation) -> bool:
    tasks = () if found.quality is None else found.quality.tasks
    results = () if found.code is None else found.code.results
    differ = any(not task.agrees or task.identical < task.documents for task in tasks)
    return differ or any(not result.agrees for result in results)


def _content(found: Evaluation) -> dict[str, Any]:
    """As JSON, with the verdict in words."""
    said = [some.sentence for some in (found.quality, found.code) if some is not None]
    return asdict(found) | {"sentence": " ".join(said) or None}


def _tell(found: Evaluation) -> None:
    if found.rows:
        print_table(evaluation_view(found))
    if found.quality is not None:
        print_table(quality_table(found.quality))
        OUT.print(found.quality.sentence)
    if found.code is not None:
        print_table(code_table(found.code))
        OUT.print(found.code.sentence)
