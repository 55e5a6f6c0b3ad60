"""Quality beside the base: lm-evaluation-harness runs the same tasks on both (the extra `eval`).

Log-likelihood tasks run the base with the adapter on it and the gate closed; `generate_until` tasks run our decoder,
and there every answer must be the base's own string.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from foresay.decoding.config import DecodeConfig
from foresay.evaluation.config import HarnessConfig
from foresay.foundation.errors import ConfigError, DataError, require
from foresay.model import MultiTokenModel

GENERATES = "generate_until"
ALLOW = "HF_ALLOW_CODE_EVAL"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task on both."""

    task: str
    kind: str
    """Its output type: `generate_until`, or one that never runs the decoder."""
    documents: int
    identical: int
    """Documents whose responses are equal: strings, or log-likelihoods to the bit."""
    base: dict[str, float]
    """Scores by metric."""
    accelerated: dict[str, float]

    @property
    def agrees(self) -> bool:
        """All scores are equal."""
        return self.base == self.accelerated


@dataclass(frozen=True, slots=True)
class Quality:
    """All tasks on both."""

    tasks: tuple[TaskResult, ...]
    seconds: dict[str, float]
    """Whole runs, loading of the data included: base and accelerated."""
    lm_eval: str
    """Version."""

    @property
    def sentence(self) -> str:
        """The verdict as a person would say it."""
        said = [task for task in self.tasks if task.kind == GENERATES]
        answers, same = sum(task.documents for task in said), sum(task.identical for task in said)
        agreeing = sum(task.agrees for task in self.tasks)
        strings = f"; {same} of {answers} generated answers are the base's own" if said else ""
        return f"{agreeing} of {len(self.tasks)} tasks have the base's scores to the digit{strings}."


def compare(
    model: MultiTokenModel, config: HarnessConfig, decode: DecodeConfig, watch: Callable[[str], None] = lambda who: None
) -> Quality:
    """Run every task on the base and on `model`; `watch` is told whose turn it is.

    Raises ConfigError for tasks that do not exist, DataError for data that cannot be had.
    """
    manager = check_tasks(config)
    from foresay.evaluation.lm_eval_model import ForesayLM  # noqa: PLC0415 (an extra)

    found, seconds = dict[str, Any](), dict[str, float]()
    for who in ("base", "accelerated"):
        watch(who)
        model.detach_hooks()
        lm = _bare(model, config) if who == "base" else ForesayLM(model, decode, batch_size=config.task_batch_size)
        started = time.perf_counter()
        found[who] = _evaluated(lm, config, manager)
        seconds[who] = round(time.perf_counter() - started, 1)
    results = tuple(_result(name, found["base"], found["accelerated"]) for name in found["base"]["samples"])
    return Quality(results, seconds, metadata.version("lm_eval"))


def accuracies(model: MultiTokenModel, config: HarnessConfig) -> dict[str, float]:
    """Accuracy (0 to 1) on each task, of groups on each of theirs: of the base with whatever is attached to it.

    Raises as `compare` does, and ConfigError for a task that has no accuracy.
    """
    found = _evaluated(_bare(model, config), config, check_tasks(config))
    scores = {task: _scores(found["results"][task]) for task in found["samples"]}
    for task, measured in scores.items():
        require("acc" in measured, f"task {task} has no accuracy (acc); give tasks of multiple choice")
    return {task: measured["acc"] for task, measured in scores.items()}


def check_tasks(config: HarnessConfig) -> Any:
    """The harness's index of tasks. Raises ConfigError where the harness, or a task that is asked for, is missing."""
    _require_harness()
    return _manager(config)


def _bare(model: MultiTokenModel, config: HarnessConfig) -> Any:
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

    return HFLM(model.base.model, tokenizer=model.require_tokenizer(), batch_size=config.task_batch_size)


def _require_harness() -> None:
    try:
        import lm_eval  # noqa: F401, PLC0415
    except ImportError as error:
        raise ConfigError(
            "--tasks needs lm-evaluation-harness, and that is not installed here; pip install 'foresay[eval]'"
        ) from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def _manager(config: HarnessConfig) -> Any:
    """The harness's index of tasks, with those asked for in it."""
    from lm_eval.tasks import TaskManager  # noqa: PLC0415

    if config.include_path is not None and not config.include_path.is_dir():
        raise ConfigError(f"{config.include_path} is no folder; give --include-path a folder with YAML files of tasks")
    manager = TaskManager(include_path=None if config.include_path is None else str(config.include_path))
    unknown = [task for task in config.tasks if not manager.match_tasks([task]) and not Path(task).is_file()]
    if unknown:
        raise ConfigError(
            f"task {unknown[0]!r} does not exist; give a task of lm-evaluation-harness (`lm-eval ls tasks`), a YAML "
            "file of one, or its folder with --include-path"
        )
    return manager


def _evaluated(lm: Any, config: HarnessConfig, manager: Any) -> dict[str, Any]:
    """What the harness found; samples by task, in order of documents."""
    from lm_eval import simple_evaluate  # noqa: PLC0415

    try:
        with _code_allowed(config.run_code):
            found: dict[str, Any] = simple_evaluate(
                lm,
                tasks=list(config.tasks),
                num_fewshot=None if config.fewshot < 0 else config.fewshot,
                limit=config.limit or None,
                task_manager=manager,
                bootstrap_iters=0,
                confirm_run_unsafe_code=config.run_code,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        said = [line.strip() for line in str(error).splitlines() if any(map(str.isalpha, line))]
        first = (said or [type(error).__name__])[0]
        raise DataError(
            f"tasks {', '.join(config.tasks)} cannot be run ({first}); their data must be in reach, or point a YAML "
            "file to local ones"
        ) from error
    return found


@contextmanager
def _code_allowed(allowed: bool) -> Iterator[None]:
    """The metric that runs code asks for a word of its own, beside the harness's flag."""
    before = os.environ.get(ALLOW)
    if allowed:
        os.environ[ALLOW] = "1"
    try:
        yield
    finally:
        if allowed:
            os.environ.pop(ALLOW) if before is None else os.environ.update({ALLOW: before})


def _result(name: str, base: dict[str, Any], accelerated: dict[str, Any]) -> TaskResult:
    samples = [found["samples"][name] for found in (base, accelerated)]
    pairs = list(zip(*(sorted(some, key=lambda one: (one["doc_id"], one.get("filter", ""))) for some in samples)))
    same = {left["doc_id"]: left["resps"] == right["resps"] for left, right in pairs}
    return TaskResult(
        task=name,
        kind=base["configs"][name]["output_type"],
        documents=len(same),
        identical=sum(same.values()),
        base=_scores(base["results"][name]),
        accelerated=_scores(accelerated["results"][name]),
    )


def _scores(found: dict[str, Any]) -> dict[str, float]:
    """Figures by metric; of a filter other than the task's own, after its name."""
    scores = {}
    for key, value in found.items():
        metric, _, which = key.partition(",")
        if which and isinstance(value, int | float) and not metric.endswith("_stderr"):
            scores[metric if which == "none" else f"{metric} ({which})"] = float(value)
    return scores
