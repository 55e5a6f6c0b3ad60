"""The fallback: base and adapter as vLLM's parallel draft model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")

from foresay.decoding.config import DecodeConfig, SampleConfig
from foresay.decoding.metrics import tally
from foresay.evaluation.lossless.sampling import CAUGHT, LEVEL, Trial, compared
from foresay.evaluation.lossless.sampling import TOKENS as TRIED
from foresay.evaluation.statistics import p_value
from foresay.model import MultiTokenModel
from foresay.models.base.load import adapter_folder
from foresay.serving.vllm.export import export_vllm_draft_model
from tests.serving.vllm.plugin.engines import (
    AS_OURS,
    TOKENS,
    answers,
    check_sampling_under_a_grammar,
    check_under_a_schema,
    check_what_must_come_is_drafted,
    counted,
    engine,
    reference,
)
from tests.support.toys import Toy, random_prompts, with_adapter

MASKS = 4
SAMPLES = 1500


@pytest.fixture(scope="module")
def llm(nano: MultiTokenModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("draft") / "nano"
    export_vllm_draft_model(nano, adapter_folder("nano"), folder, MASKS, overwrite=False)
    with engine(folder, max_num_seqs=64, structured_outputs_config=AS_OURS) as llm:
        yield llm


def test_greedy_is_transformers_own_and_drafts_are_our_quadratic_layouts(
    llm: Any, nano: MultiTokenModel, prompts: list[list[int]]
) -> None:
    """A draft pass after every verification: what `quadratic` has in one pass, this has in two, and one token more."""
    said, found = counted(llm, prompts)
    assert said == reference(nano, prompts)
    going = [[*prompt, answer[0]] for prompt, answer in zip(prompts, said) if len(answer) > 1]
    config = DecodeConfig(layout="quadratic", masks=MASKS, max_new_tokens=TOKENS - 1)
    ours = tally(nano.decode(going, config))
    # Its first draft is the base's own next token, which is always right: each step keeps one more than ours.
    per_step = 1 + found["accepted_tokens"] / found["drafts"]
    assert per_step > ours.tokens_per_step + 0.8
    assert found["draft_tokens"] <= (MASKS + 1) * found["drafts"]


def test_sampling_has_transformers_distribution(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    prompt = min(prompts, key=len)
    trial = Trial(nano, tuple(prompt), SampleConfig(temperature=0.8), SAMPLES)
    theirs = trial.reference()
    said = answers(llm, [prompt], TRIED, temperature=0.8, n=SAMPLES)
    assert p_value(compared(said), theirs) >= LEVEL
    assert p_value(trial.control(), theirs) < CAUGHT, "a verifier broken on purpose must show"


def test_under_a_schema_answers_are_plain_decodings(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    found = check_under_a_schema(llm, nano, prompts)
    assert found["accepted_tokens"] > 2 * found["drafts"], "names of fields come as drafts"


def test_what_must_come_is_drafted(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    check_what_must_come_is_drafted(llm, nano, prompts[0], MASKS + 1)


def test_sampling_under_a_grammar(llm: Any, nano: MultiTokenModel, prompts: list[list[int]]) -> None:
    check_sampling_under_a_grammar(llm, nano, min(prompts, key=len), 400)


@pytest.mark.parametrize("kind", ["Qwen3", "Qwen2", "Mistral"])
def test_a_random_adapter_changes_nothing(kind: str, tmp_path: Path) -> None:
    """Another family, the `paper` sampler, prompts in chunks, the mask id in one: what it drafts is verified.

    Qwen 2 has so large a vocabulary that drafts are taken from a shortlist.
    """
    wide = {"hidden_size": 128, "intermediate_size": 96, "sliding_window": None}
    toy = Toy(f"wide-{kind}", kind, wide | {"Qwen3": {"head_dim": 32}, "Qwen2": {"vocab_size": 20_000}}.get(kind, {}))
    model = MultiTokenModel(with_adapter(toy.model(), masks=3, sampler="paper"), None, "toy")
    model.save_pretrained(tmp_path / "adapter")
    said = export_vllm_draft_model(model, tmp_path / "adapter", tmp_path / "draft", 0, overwrite=False)
    prompts = random_prompts((3, 7, 90, 12, 5, 150, 1, 33))
    prompts.append([5, said.first_mask, said.first_mask, 9, said.first_mask])
    cut = {"max_num_batched_tokens": 128, "max_num_seqs": 8, "max_model_len": 256, "skip_tokenizer_init": True}
    with engine(tmp_path / "draft", enforce_eager=True, **cut) as llm:
        assert answers(llm, prompts, detokenize=False) == reference(model, prompts)
