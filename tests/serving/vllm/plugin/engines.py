"""Engines for the tests, what they answer, what they count, and what our own engine counts beside them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import Tally, tally
from foresay.evaluation.baseline import plain_answers
from foresay.model import MultiTokenModel
from foresay.serving.vllm.manifest import engine_arguments

TOKENS = 48
COUNTED = "vllm:spec_decode_num_"


@contextmanager
def engine(folder: Path, plugin: dict[str, Any] | None = None, **more: Any) -> Iterator[Any]:
    """vLLM on a served copy, in float32."""
    from vllm import LLM  # noqa: PLC0415 - the module is collected without vLLM too

    settings = {"dtype": "float32", "max_model_len": 512, "max_num_seqs": 16, "disable_log_stats": False}
    llm = LLM(**engine_arguments(folder, **(plugin or {})) | settings | more)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()


def answers(llm: Any, prompts: Sequence[Sequence[int]], tokens: int = TOKENS, **sampling: Any) -> list[list[int]]:
    """Greedy answers, unless `sampling` says otherwise."""
    from vllm import SamplingParams  # noqa: PLC0415

    settings = SamplingParams(**{"temperature": 0.0, "max_tokens": tokens} | sampling)
    said = llm.generate([{"prompt_token_ids": list(prompt)} for prompt in prompts], settings, use_tqdm=False)
    return [list(output.token_ids) for request in said for output in request.outputs]


def counts(llm: Any) -> dict[str, int]:
    """vLLM's own counters so far: `drafts` (steps with drafts or masks), `draft_tokens`, `accepted_tokens`."""
    metrics = {metric.name: metric for metric in llm.get_metrics() if metric.name.startswith(COUNTED)}
    names = ("drafts", "draft_tokens", "accepted_tokens")
    return {name: int(metrics[COUNTED + name].value) if COUNTED + name in metrics else 0 for name in names}


def counted(
    llm: Any, prompts: Sequence[Sequence[int]], tokens: int = TOKENS, **sampling: Any
) -> tuple[list[list[int]], dict[str, int]]:
    """Greedy answers, and what vLLM counted meanwhile."""
    before = counts(llm)
    said = answers(llm, prompts, tokens, **sampling)
    return said, {name: value - before[name] for name, value in counts(llm).items()}


def reference(model: MultiTokenModel, prompts: Sequence[Sequence[int]], tokens: int = TOKENS) -> list[list[int]]:
    """transformers' own greedy answers, each prompt alone."""
    return [plain_answers(model, [prompt], tokens)[0] for prompt in prompts]


def behind_first(
    model: MultiTokenModel, prompts: Sequence[Sequence[int]], said: Sequence[Sequence[int]], tokens: int = TOKENS
) -> Tally:
    """Our linear layout from the first token on: vLLM's prompt step has no masks, the one after it is our first."""
    going = [[*prompt, answer[0]] for prompt, answer in zip(prompts, said) if len(answer) > 1]
    return tally(model.decode(going, DecodeConfig(layout="linear", max_new_tokens=tokens - 1)))
