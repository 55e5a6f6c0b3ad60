"""A Ray cluster as an engine: workers that each answer as `local` does.

The workers outlive a shard, so that a base is loaded once; Ray Data would build its pool of actors anew for every
dataset that is run.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from foresay.foundation.errors import ConfigError, MissingPackage
from foresay.training.distillation.backend import Answer, AnswerBackend, PromptRow, Task, groups
from foresay.training.distillation.local import LocalEngine

RESTARTS = 2
"""How often a worker that died is started again, and its batch given to it."""


class _Worker:
    """Lives in a process of its own."""

    def __init__(self, task: Task) -> None:
        self.engine = LocalEngine.open(task)

    def together(self, group: Sequence[PromptRow]) -> dict[int, Answer]:
        return self.engine.together(group)


class RayEngine(AnswerBackend):
    """Answers by `workers` copies of the model that `task` names, on the cluster that Ray finds or starts.

    Raises MissingPackage, and ConfigError where there is no cluster to be had.
    """

    def __init__(self, task: Task, workers: int = 0) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray  # noqa: PLC0415 (an extra)
            from ray.util import ActorPool  # noqa: PLC0415
        except ImportError as error:
            raise MissingPackage("--engine ray answers by Ray", "ray") from error
        try:
            ray.init(log_to_driver=False, ignore_reinit_error=True)
        except Exception as error:  # Ray has no narrower one for a node that does not start
            why = str(error).strip().splitlines()[0]
            raise ConfigError(f"Ray could be neither started nor reached ({why}); see `ray status`") from error
        gpus = int(ray.cluster_resources().get("GPU", 0))
        # Workers have what this process may lack: it decides for all of them.
        self.task = task = task.settled("cuda" if gpus else "cpu")
        self.tokenizer, self.context, self.vocabulary = task.tokenizer, task.context, task.vocabulary
        settings = {"num_cpus": 1, "num_gpus": 1 if gpus else 0}
        worker = ray.remote(**settings, max_restarts=RESTARTS, max_task_retries=RESTARTS)(_Worker)
        self.workers = ActorPool([worker.remote(task) for _ in range(workers or gpus or 1)])

    def identity(self) -> dict[str, Any]:
        """See `Engine.identity`."""
        return {"engine": "ray"} | self.task.identity()

    def answer(self, prompts: Sequence[PromptRow]) -> Iterator[dict[int, Answer]]:
        """See `Engine.answer`; a batch at a time, in the order in which they are done."""
        batches = groups(prompts, self.task.batch_size)
        answers: Iterator[dict[int, Answer]] = self.workers.map_unordered(
            lambda worker, group: worker.together.remote(group), batches
        )
        return answers
