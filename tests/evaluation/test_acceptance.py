"""The verb `eval`: both counts from one decode, and one set of metrics wherever figures are made."""

from dataclasses import asdict, replace

import pytest
import torch

from foresay.data.prompts import Prompt, embedded_prompts
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import tally, within
from foresay.evaluation.acceptance import Evaluation, Rate, evaluate
from foresay.evaluation.config import BenchConfig, CheckConfig, EvalConfig
from foresay.evaluation.lossless.greedy import Checker
from foresay.evaluation.speed.bench import bench
from foresay.foundation.errors import ConfigError, PromptError
from foresay.model import MultiTokenModel
from foresay.models.base.load import load_tokenizer
from foresay.training.runs.validation import HeldOut
from tests.support.toys import LLAMA, random_prompts, with_adapter

TOKENS = 24
CONFIG = EvalConfig(masks=(1, 3), batch_size=3, paper_steps=6, max_new_tokens=10, samples=1)
PROMPTS = [
    Prompt(ids, domain, "", benchmark)
    for domain, benchmark, lengths in (("odd", "a", (3, 7)), ("even", "c", (4, 8)), ("odd", "b", (5,)))
    for ids in random_prompts(lengths, seed=len(benchmark))
]


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel(with_adapter(LLAMA.model(vocab_size=4096), masks=3), load_tokenizer("nano"), "toy")


@pytest.fixture(scope="module")
def nano() -> MultiTokenModel:
    return MultiTokenModel.from_pretrained("nano")


@pytest.fixture(scope="module")
def found(model: MultiTokenModel) -> Evaluation:
    return evaluate(model, PROMPTS, CONFIG)


def test_every_benchmark_and_domain_has_a_row_for_each_number_of_masks(found: Evaluation) -> None:
    assert [(row.domain, row.benchmark, row.masks, row.prompts) for row in found.rows] == [
        (domain, name, masks, count)
        for masks in (1, 3)
        for domain, name, count in (("even", "c", 2), ("odd", "a", 2), ("odd", "b", 1))
    ]
    assert [(row.domain, row.masks, row.prompts) for row in found.domains] == [
        (domain, masks, count) for masks in (1, 3) for domain, count in (("even", 2), ("odd", 3))
    ]


@pytest.mark.parametrize(("most_steps", "most_tokens"), [(12, 8), (3, 24)])
def test_both_counts_are_what_decodes_of_their_own_would_give(
    nano: MultiTokenModel, most_steps: int, most_tokens: int
) -> None:
    # A trained adapter: where nothing is accepted, every protocol gives one.
    prompts = embedded_prompts(nano.require_tokenizer(), "test", 1)
    config = EvalConfig(masks=(4,), paper_steps=most_steps, max_new_tokens=most_tokens)
    rows = evaluate(nano, prompts, config).domains
    ids = [prompt.ids for prompt in sorted(prompts, key=lambda prompt: prompt.domain)]
    long, short = (
        nano.decode(ids, DecodeConfig(layout="quadratic", masks=4, max_new_tokens=most)) for most in (70, most_tokens)
    )
    assert len({row.paper.value for row in rows}) > 2
    for row, steps, tokens in zip(rows, long, short):
        assert row.paper.value == tally([replace(steps, steps=steps.steps[:most_steps])]).tokens_per_step
        assert row.whole.value == tally([tokens]).tokens_per_step
        assert (row.tokens, row.steps) == (len(tokens.tokens), len(tokens.steps))
        assert row.acceptance == tally([tokens]).acceptance


def test_an_interval_holds_its_rate(nano: MultiTokenModel) -> None:
    prompts = embedded_prompts(nano.require_tokenizer(), "test", 2)
    ids = [prompt.ids for prompt in prompts]
    said = nano.decode(ids, DecodeConfig(layout="quadratic", max_new_tokens=24))
    rate = Rate.of(said)
    single = [tally([one]).tokens_per_step for one in said]
    assert min(single) <= rate.low < rate.value < rate.high <= max(single)


def test_samples_tell_every_step(model: MultiTokenModel, found: Evaluation) -> None:
    assert [(sample.domain, sample.benchmark) for sample in found.samples] == [
        ("even", "c"),
        ("odd", "a"),
        ("odd", "b"),
    ]
    for sample in found.samples:
        assert sample.masks == 3
        assert [said.step for said in sample.said] == list(range(1, len(sample.said) + 1))
        assert sample.said[1].drafted == 3


def test_margins_are_those_of_the_tokens_of_each_step(nano: MultiTokenModel) -> None:
    prompt = embedded_prompts(nano.require_tokenizer(), "test", 1)[0]
    [sample] = evaluate(nano, [prompt], EvalConfig(masks=(3,), paper_steps=1, max_new_tokens=24)).samples
    assert max(said.tokens for said in sample.said) > 1, "steps of one token have no least margin to choose"
    ids, margins = list(prompt.ids), []
    for said in sample.said:
        closest = []
        for _ in range(said.tokens):
            best = nano.base.model(torch.tensor([ids])).logits[0, -1].topk(2)
            closest.append((best.values[0] - best.values[1]).item())
            ids.append(int(best.indices[0]))
        margins.append(min(closest))
    assert sample.margins == pytest.approx(margins, abs=1e-3)


def test_an_evaluation_is_plain_data(found: Evaluation) -> None:
    assert asdict(found)["provenance"]["settings"]["paper_steps"] == 6
    assert found.quality is None


def test_too_many_masks_are_refused(model: MultiTokenModel) -> None:
    with pytest.raises(PromptError, match="4 masks were asked for"):
        evaluate(model, PROMPTS, replace(CONFIG, masks=(4,)))
    with pytest.raises(ConfigError, match="masks is"):
        EvalConfig(masks=(0,))


def test_an_answer_is_cut_as_the_decoder_would_cut_it(nano: MultiTokenModel) -> None:
    ids = [prompt.ids for prompt in embedded_prompts(nano.require_tokenizer(), "test", 1)]
    whole = nano.decode(ids, DecodeConfig(layout="quadratic", max_new_tokens=40))
    for most in (1, 7, 20):
        shorter = nano.decode(ids, DecodeConfig(layout="quadratic", max_new_tokens=most))
        assert [within(answer, tokens=most) for answer in whole] == shorter
    assert within(whole[0]) == whole[0]


def test_training_bench_check_and_eval_agree_on_one_run(nano: MultiTokenModel) -> None:
    """The same prompts, layout, masks and length: the same tokens per step and acceptance, to the digit."""
    prompts, k = embedded_prompts(nano.require_tokenizer(), "test", 2), nano.config.num_masks
    evaluated = evaluate(nano, prompts, EvalConfig(masks=(k,), paper_steps=1, max_new_tokens=TOKENS))
    benched = bench(
        nano,
        prompts,
        BenchConfig(("quadratic",), batch_sizes=(2,), lookup_tokens=0, max_new_tokens=TOKENS, repeats=1),
    )
    ours = {result.domain: result for result in benched.results if result.decoder == "quadratic"}
    kept = nano.acceptance
    trained = HeldOut(tuple(prompts), TOKENS, 2).measure(nano).tokens_per_step
    positions, nano.acceptance = nano.acceptance, kept
    checked = Checker(nano, CheckConfig(TOKENS, layouts=("quadratic",)), lambda dtype: nano).run(prompts)

    rates = {row.domain: row.whole.value for row in evaluated.domains}
    assert rates == trained == {domain: result.tokens_per_step for domain, result in ours.items()}
    tokens, steps = (sum(getattr(row, name) for row in evaluated.domains) for name in ("tokens", "steps"))
    assert checked.tokens_per_step == {"quadratic": tokens / steps}
    for row in evaluated.domains:
        assert tuple(entry.unconditional for entry in row.acceptance) == ours[row.domain].acceptance_per_position
    first = [row.acceptance[0] for row in evaluated.domains]
    assert positions[0] == round(sum(one.accepted for one in first) / sum(one.drafted for one in first), 4)
