"""Engines for the tests, what they answer, what they count, and what our own engine counts beside them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foresay.decoding.config import DecodeConfig, StructuredOutputs
from foresay.decoding.metrics import Tally, tally
from foresay.evaluation.baseline import plain_answers
from foresay.evaluation.lossless.sampling import CAUGHT, LEVEL, compared
from foresay.evaluation.lossless.sampling import TOKENS as TRIED
from foresay.evaluation.statistics import p_value
from foresay.model import MultiTokenModel
from foresay.serving.vllm.manifest import engine_arguments

TOKENS = 48
COUNTED = "vllm:spec_decode_num_"
AS_OURS = {"backend": "guidance", "disable_any_whitespace": True}
"""vLLM's grammars, by our library: where a text must come, its other backends let it come in other tokens too."""


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


def check_what_must_come_is_drafted(llm: Any, model: MultiTokenModel, prompt: Sequence[int], most: int) -> None:
    """A grammar of one text is said in as few steps as there is room for drafts."""
    from vllm.sampling_params import StructuredOutputsParams  # noqa: PLC0415

    text = "Seven blue elephants were quietly eating purple radishes behind the old lighthouse."
    [own] = model.answer([prompt], structured=StructuredOutputs(choice=(text,)), layout="plain")
    said, found = counted(llm, [prompt], structured_outputs=StructuredOutputsParams(choice=[text]))
    assert said == [own.tokens]
    assert found["drafts"] == -(-(len(own.tokens) - 1) // (most + 1)), "after the prompt's, each step is full"


def check_under_a_schema(llm: Any, model: MultiTokenModel, prompts: Sequence[Sequence[int]]) -> dict[str, int]:
    """Answers are plain decoding's under the same schema; returns what was counted."""
    from vllm.sampling_params import StructuredOutputsParams  # noqa: PLC0415

    fields = {"name": {"type": "string", "maxLength": 24}, "happy": {"type": "boolean"}, "count": {"type": "integer"}}
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    ours = StructuredOutputs(json=schema, disable_any_whitespace=True)
    own = model.answer(list(prompts), structured=ours, layout="plain", max_new_tokens=TOKENS)
    said, found = counted(llm, prompts, structured_outputs=StructuredOutputsParams(json=schema))
    assert said == [answer.tokens for answer in own]
    assert len({tuple(tokens) for tokens in said}) > len(prompts) // 2, "a schema with one answer would show nothing"
    return found


def check_sampling_under_a_grammar(llm: Any, model: MultiTokenModel, prompt: Sequence[int], samples: int) -> None:
    """Sampled answers have plain decoding's distribution under the same grammar, and another temperature shows."""
    from vllm.sampling_params import StructuredOutputsParams  # noqa: PLC0415

    regex = r"(Yes|No|Maybe|Once)( [a-z]{1,6}){1,2}, (said|asked) the (cat|dog|mouse)\."
    said = answers(
        llm, [prompt], TRIED, temperature=0.8, n=samples, structured_outputs=StructuredOutputsParams(regex=regex)
    )

    def own(temperature: float) -> Any:
        many = [list(prompt)] * samples
        held = {"structured": StructuredOutputs(regex=regex), "layout": "plain", "max_new_tokens": TRIED}
        return compared([one.tokens for one in model.answer(many, temperature=temperature, **held)])

    assert p_value(compared(said), own(0.8)) >= LEVEL
    assert p_value(compared(said), own(2.0)) < CAUGHT, "another distribution must show"
