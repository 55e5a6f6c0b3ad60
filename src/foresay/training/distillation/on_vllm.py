"""vLLM as an engine: many prompts at once on a GPU, by the base alone."""

import os
import random
from collections.abc import Iterator, Sequence
from typing import Any

from foresay.foundation.errors import ConfigError, MissingPackage
from foresay.models.base.load import base_folder, load_stop_tokens
from foresay.training.distillation.backend import Answer, AnswerBackend, PromptRow, Task


class VllmEngine(AnswerBackend):
    """Answers by the base that `task` names, in vLLM's own batches and with its own draws.

    Raises MissingPackage, and ConfigError for a base with a LoRA or one to be quantised on loading.
    """

    def __init__(self, task: Task) -> None:
        # Its chatter would stand between our results.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        try:
            import vllm  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise MissingPackage("--engine vllm answers by vLLM", "vllm") from error
        if task.guest.adapter or task.loading.quantize not in ("auto", "none"):
            raise ConfigError("--engine vllm takes a base as it comes; for a LoRA or --quantize give --engine local")
        self.task = task = task.settled()
        self.tokenizer, self.context, self.vocabulary = task.tokenizer, task.context, task.vocabulary
        self.stops = sorted(load_stop_tokens(task.guest.base))
        self.engine = vllm.LLM(base_folder(task.guest.base), dtype=task.dtype, max_model_len=self.context)
        self.settings = vllm.SamplingParams

    def identity(self) -> dict[str, Any]:
        """See `Engine.identity`."""
        return {"engine": "vllm"} | self.task.identity()

    def answer(self, prompts: Sequence[PromptRow]) -> Iterator[dict[int, Answer]]:
        """See `Engine.answer`; all at once: vLLM makes batches of its own."""
        asked = [{"prompt_token_ids": list(prompt.ids)} for prompt in prompts]
        said = self.engine.generate(asked, [self._settings(prompt.number) for prompt in prompts], use_tqdm=False)
        first = [answer.outputs[0] for answer in said]
        yield {prompt.number: Answer(list(one.token_ids), one.finish_reason) for prompt, one in zip(prompts, first)}

    def _settings(self, row: int) -> Any:
        sample, decode = self.task.sample, self.task.decode
        return self.settings(
            temperature=sample.temperature,
            top_k=sample.top_k,
            top_p=sample.top_p,
            min_p=sample.min_p,
            seed=random.Random(f"{sample.seed} {row}").getrandbits(63),
            max_tokens=decode.max_new_tokens,
            stop_token_ids=[] if decode.ignore_stop else self.stops,
            ignore_eos=decode.ignore_stop,
            detokenize=False,
        )
