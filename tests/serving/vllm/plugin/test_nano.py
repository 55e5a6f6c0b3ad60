"""The embedded model inside vLLM, eager: greedy, sampled, and counted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from transformers import AutoModelForCausalLM

from foresay.decoding.config import SampleConfig, StructuredOutputs
from foresay.evaluation.lossless.sampling import CAUGHT, LEVEL, TOKENS, Trial, compared
from foresay.evaluation.statistics import p_value
from foresay.model import MultiTokenModel
from tests.serving.vllm.plugin.engines import (
    AS_OURS,
    answers,
    behind_first,
    check_sampling_under_a_grammar,
    check_under_a_schema,
    check_what_must_come_is_drafted,
    counted,
    engine,
    reference,
)
from tests.serving.vllm.plugin.engines import TOKENS as ANSWER

SAMPLES = 1500
TEMPERATURE = 0.8
"""Not 1, which a temperature that got lost would look like."""
CONTEXT = 512


@pytest.fixture(scope="module")
def llm(nano_copy: Path) -> Iterator[Any]:
    how = {"enforce_eager": True, "max_model_len": CONTEXT, "max_num_seqs": 64}
    with engine(nano_copy, {"lengths": "all"}, **how, structured_outputs_config=AS_OURS) as llm:
        yield llm


def test_greedy_is_transformers_own_and_steps_are_our_linear_layouts(
    llm: Any, nano: MultiTokenModel, prompts: list[list[int]]
) -> None:
    said, found = counted(llm, prompts)
    assert said == reference(nano, prompts)
    ours = behind_first(nano, prompts, said)
    assert ours.accepted > len(prompts), "drafts that are never kept would show nothing"
    # Batches round differently, so that now and then a draft may be another one.
    assert found["drafts"] == pytest.approx(ours.steps, rel=0.02)
    # vLLM counts drafts that were right after the end of an answer too.
    assert found["accepted_tokens"] >= 0.98 * ours.accepted
    masks = nano.config.num_masks
    assert found["draft_tokens"] <= masks * found["drafts"], "masks are no drafts"
    assert found["draft_tokens"] == pytest.approx(ours.drafted, rel=0.1)


def test_each_alone_is_the_same(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    assert [answers(llm, [prompt])[0] for prompt in prompts[::4]] == reference(nano, prompts[::4])


def test_penalties_see_drafts(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    said = answers(llm, prompts[:6], repetition_penalty=1.3)
    nano.detach_hooks()
    for prompt, answer in zip(prompts, said):
        ids = torch.tensor([prompt])
        own = nano.base.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            repetition_penalty=1.3,
            max_new_tokens=48,
            pad_token_id=0,
        )
        assert answer == own[0, len(prompt) :].tolist()


def test_masks_in_a_prompt_are_tokens(llm: Any, nano_copy: Path, prompts: list[list[int]]) -> None:
    """Whoever sends a mask's id gets its embedding, and the untouched base on it."""
    copy = AutoModelForCausalLM.from_pretrained(nano_copy).eval()
    first = copy.config.vocab_size - 8
    prompt = [*prompts[0][:-2], first, first + 1, *prompts[0][-2:], first]
    ids = torch.tensor([prompt])
    own = copy.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, pad_token_id=0)
    assert answers(llm, [prompt], 24)[0] == own[0, len(prompt) :].tolist()


def test_the_context_may_end(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    text = [token for prompt in prompts for token in prompt] * 9
    long = [text[: CONTEXT - room] for room in (1, 5, 12, 21)]
    said = answers(llm, [*long, prompts[0]], CONTEXT, ignore_eos=True)
    for prompt, answer in zip(long, said):
        own = nano.base.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=CONTEXT - len(prompt),
            eos_token_id=None,
            pad_token_id=0,
        )
        assert answer == own[0, len(prompt) :].tolist()


def test_sampling_has_transformers_distribution(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    prompt = min(prompts, key=len)
    trial = Trial(nano, tuple(prompt), SampleConfig(temperature=TEMPERATURE), SAMPLES)
    theirs = trial.reference()
    said = answers(llm, [prompt], TOKENS, temperature=TEMPERATURE, n=SAMPLES)
    assert p_value(compared(said), theirs) >= LEVEL
    assert p_value(trial.control(), theirs) < CAUGHT, "a verifier broken on purpose must show"


def test_seeds_repeat(llm: Any, prompts: list[list[int]]) -> None:
    once, again = (answers(llm, [prompts[0]], 24, temperature=1.0, seed=7) for _ in range(2))
    assert once == again
    assert len({tuple(answers(llm, [prompts[0]], 24, temperature=1.0, seed=seed)[0]) for seed in range(6)}) > 1


def test_under_a_grammar_answers_are_plain_decodings_and_drafts_stay(
    llm: Any, nano: MultiTokenModel, prompts: list[list[int]]
) -> None:
    from vllm.sampling_params import StructuredOutputsParams  # noqa: PLC0415

    regex = r"[A-Z][a-z]{1,9}( [a-z]{1,9}){5,9}\."
    said, found = counted(llm, prompts, structured_outputs=StructuredOutputsParams(regex=regex))
    own = nano.answer(prompts, structured=StructuredOutputs(regex=regex), layout="plain", max_new_tokens=ANSWER)
    assert said == [answer.tokens for answer in own]
    assert len({tuple(tokens) for tokens in said}) > len(prompts) // 2, "a grammar with one answer would show nothing"
    assert found["accepted_tokens"] > len(prompts)
    assert found["draft_tokens"] <= nano.config.num_masks * found["drafts"], "masks are no drafts"


def test_under_a_schema_answers_are_plain_decodings(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    found = check_under_a_schema(llm, nano, prompts)
    assert found["accepted_tokens"] > found["drafts"], "names of fields come as drafts"


def test_what_must_come_is_drafted(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    check_what_must_come_is_drafted(llm, nano, prompts[0], nano.config.num_masks)


def test_sampling_under_a_grammar(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    check_sampling_under_a_grammar(llm, nano, min(prompts, key=len), 400)


def test_grammars_and_free_answers_share_steps(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    from vllm import SamplingParams  # noqa: PLC0415
    from vllm.sampling_params import StructuredOutputsParams  # noqa: PLC0415

    choices = ["yes, please", "no, never again"]
    held = SamplingParams(temperature=0.0, max_tokens=24, structured_outputs=StructuredOutputsParams(choice=choices))
    free = SamplingParams(temperature=0.0, max_tokens=24)
    asked = [{"prompt_token_ids": prompt} for prompt in prompts]
    said = llm.generate(asked, [held, free] * (len(prompts) // 2), use_tqdm=False)
    tokens = [list(request.outputs[0].token_ids) for request in said]
    own = nano.answer(prompts[::2], structured=StructuredOutputs(choice=tuple(choices)), layout="plain")
    assert tokens[::2] == [answer.tokens for answer in own]
    assert tokens[1::2] == reference(nano, prompts[1::2], 24)


def test_logprobs_are_the_bases(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    from vllm import SamplingParams  # noqa: PLC0415

    settings = SamplingParams(temperature=0.0, max_tokens=24, logprobs=1)
    [said] = llm.generate([{"prompt_token_ids": prompts[0]}], settings, use_tqdm=False)
    tokens = list(said.outputs[0].token_ids)
    nano.detach_hooks()
    with torch.no_grad():
        logits = nano.base.model(torch.tensor([[*prompts[0], *tokens]])).logits[0]
    own = logits.log_softmax(dim=-1)[len(prompts[0]) - 1 : -1].gather(1, torch.tensor(tokens)[:, None])[:, 0]
    found = [entry[token].logprob for entry, token in zip(said.outputs[0].logprobs, tokens)]
    np.testing.assert_allclose(found, own.numpy(), atol=1e-3)
