"""This process as an engine: our own decoding, in batches."""

from collections.abc import Iterator, Sequence
from typing import Any

from foresay.decoding.live import GenerationHooks
from foresay.decoding.sampling.chooser import chooser_of
from foresay.model import MultiTokenModel
from foresay.training.distillation.backend import Answer, AnswerBackend, PromptRow, Task, groups


class LocalEngine(AnswerBackend):
    """Answers by `model`, as `task` says."""

    def __init__(self, model: MultiTokenModel, task: Task) -> None:
        self.model, self.task = model, task.settled()
        self.tokenizer = model.require_tokenizer()
        self.context, self.vocabulary = model.base.context, model.base.embedding.weight.shape[0]

    @classmethod
    def open(cls, task: Task) -> "LocalEngine":
        """Load the model that `task` names."""
        return cls(task.open(), task)

    def identity(self) -> dict[str, Any]:
        """See `Engine.identity`."""
        return {"engine": "local"} | self.task.identity(self.model.fingerprints())

    def answer(self, prompts: Sequence[PromptRow]) -> Iterator[dict[int, Answer]]:
        """See `Engine.answer`; a batch at a time."""
        return (self.together(group) for group in groups(prompts, self.task.batch_size))

    def together(self, group: Sequence[PromptRow]) -> dict[int, Answer]:
        """The answers, by their rows, of prompts that share their steps."""
        chooser = chooser_of(self.task.sample)
        # A row's draws depend on its number, not on its place in a batch.
        how = GenerationHooks(chooser=lambda indices: chooser([group[index].number for index in indices]))
        said = self.model.decode([asked.ids for asked in group], self.task.drafting, how)
        return {asked.number: Answer(one.tokens, one.ended) for asked, one in zip(group, said)}
