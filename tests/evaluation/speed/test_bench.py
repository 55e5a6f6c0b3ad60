"""The verb `bench`: the figures of a run and how they fit together. Seconds are a clock's business and not asserted."""

import math
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from foresay.data.prompts import Prompt
from foresay.evaluation.config import BenchConfig
from foresay.evaluation.speed.bench import Bench, Result, bench
from foresay.evaluation.speed.timed_runs import (
    LOOKUP,
    PLAIN,
    PLANNED,
    TRANSFORMERS,
    Case,
    Decoder,
    TimedBatch,
    TimedRuns,
    Turn,
)
from foresay.foundation.errors import PromptError
from foresay.model import MultiTokenModel
from tests.support.toys import LLAMA, random_prompts, with_adapter

KEYS = {
    "decoder",
    "masks",
    "batch_size",
    "lengthened_to",
    "prompt_tokens",
    "dtype",
    "domain",
    "tokens_per_second",
    "tokens_per_second_spread",
    "first_token_seconds",
    "peak_memory_bytes",
    "tokens_per_step",
    "acceptance_per_position",
    "repeated_4grams",
    "speedup_vs_plain",
    "speedup_vs_transformers",
    "efficiency",
}
CONFIG = BenchConfig(masks=(1, 3), batch_sizes=(1, 2), max_new_tokens=12, repeats=3)
OURS = ["linear", "linear", "quadratic", "quadratic", PLANNED]
NAMES = {1: [TRANSFORMERS, LOOKUP, PLAIN, *OURS], 2: [TRANSFORMERS, PLAIN, *OURS]}
PROMPTS = [
    Prompt(ids, domain, "")
    for domain, lengths in (("odd", (3, 7, 5)), ("even", (4, 8)))
    for ids in random_prompts(lengths, seed=len(domain))
]


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel(with_adapter(LLAMA.model(), masks=3), None, "toy", {"made": "by hand"})


@pytest.fixture(scope="module")
def measured(model: MultiTokenModel) -> Bench:
    return bench(model, PROMPTS, CONFIG)


def test_a_tree_is_measured_like_any_layout(model: MultiTokenModel) -> None:
    config = BenchConfig(layouts=("tree",), batch_sizes=(2,), max_new_tokens=12, repeats=1)
    result = bench(model, PROMPTS[:3], config).results[-1]
    assert (result.decoder, result.masks, result.identical) == ("tree", 3, result.prompts)
    assert len(result.acceptance_per_position) == 3


def test_every_result_has_its_facts(measured: Bench) -> None:
    assert [(result.batch_size, result.domain, result.decoder) for result in measured.results] == [
        (size, domain, name) for size in (1, 2) for domain in ("odd", "even") for name in NAMES[size]
    ]
    for result in measured.results:
        assert asdict(result).keys() >= KEYS
        assert (result.lengthened_to, result.dtype) == (0, "float32")
        assert result.prompts == {("odd", 1): 3, ("odd", 2): 4}.get((result.domain, result.batch_size), 2)
        assert result.prompt_tokens == {"odd": 5.0, "even": 6.0}[result.domain]


def test_prompts_are_brought_to_their_lengths(model: MultiTokenModel) -> None:
    config = BenchConfig(layouts=("linear",), prompt_tokens=(0, 20), max_new_tokens=3, repeats=1)
    found = bench(model, PROMPTS, config)
    assert found.lengths == [0, 20]
    assert [r.prompt_tokens for r in found.results if r.lengthened_to == 20] == [20.0] * 8
    with pytest.raises(PromptError, match="prompt 1 has 256 tokens and the base's context is 256"):
        bench(model, PROMPTS, replace(config, prompt_tokens=(256,)))


def test_every_answer_is_identical(measured: Bench) -> None:
    for result in measured.results:
        assert result.identical == result.prompts, result.decoder


def test_the_reference_is_transformers(model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [[7] * 8, [1, 2, 3], [4, 5, 6, 8, 9]]
    monkeypatch.setattr(
        "foresay.evaluation.speed.timed_runs.plain_answers", lambda model, group, *more: answers[: len(group)]
    )
    found = bench(model, PROMPTS[:3], BenchConfig(max_new_tokens=3, repeats=1, batch_sizes=(3,), layouts=("linear",)))
    assert [result.identical for result in found.results] == [3, 0, 0]
    assert [result.repeated_4grams for result in found.results] == [4 / 7] * 3


def test_prompt_lookup_counts_its_forwards(model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(
        model: object, group: list[object], most: int, lookup: int, heard: Callable[[], None]
    ) -> list[list[int]]:
        for _ in range(2 if lookup else 5):
            heard()
        return [[1, 2, 3, 4, 5]] * len(group)

    monkeypatch.setattr("foresay.evaluation.speed.timed_runs.plain_answers", answers)
    found = bench(model, PROMPTS, BenchConfig(max_new_tokens=5, repeats=1, layouts=()))
    steps = {result.decoder: result.tokens_per_step for result in found.results}
    assert steps == {TRANSFORMERS: 1.0, LOOKUP: 2.5, PLAIN: 1.0}


def test_a_decoder_is_as_fast_as_itself(measured: Bench) -> None:
    for result in measured.results:
        if result.decoder == PLAIN:
            assert result.speedup_vs_plain == 1.0
            assert result.tokens_per_step == 1.0
            assert result.efficiency == 1.0
        if result.decoder == TRANSFORMERS:
            assert result.speedup_vs_transformers == 1.0


def test_speed_ups_are_medians_of_the_ratio_within_a_repeat(
    model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The machine gets slower by the repeat; in the second, something held transformers up.
    seconds = {TRANSFORMERS: [1.0, 40.0, 4.0], PLAIN: [2.0, 4.0, 8.0], "linear": [0.5, 1.0, 2.0]}
    turns = {name: iter(some) for name, some in seconds.items()}

    def turn(self: TimedRuns, case: Case, decoder: Decoder) -> Turn:
        return Turn((TimedBatch(next(turns[decoder.name]), 0.1, 1, [[1, 2, 3, 4]] * 2, []),), None)

    monkeypatch.setattr(TimedRuns, "turn", turn)
    monkeypatch.setattr("foresay.evaluation.speed.bench._tokens_per_step", lambda *_: 1.0)
    found = bench(model, PROMPTS[:2], BenchConfig(layouts=("linear",), lookup_tokens=0))
    transformers, plain, linear = found.results
    assert (transformers.speedup_vs_plain, plain.speedup_vs_plain, linear.speedup_vs_plain) == (2.0, 1.0, 4.0)
    assert (plain.speedup_vs_transformers, linear.speedup_vs_transformers) == (0.5, 2.0)
    assert (plain.tokens_per_second, plain.tokens_per_second_spread) == (2.0, (1.0, 4.0))
    assert linear.first_token_seconds == 0.1


def test_figures_fit_together(measured: Bench) -> None:
    for result in measured.results:
        low, high = result.tokens_per_second_spread
        assert 0 < low <= result.tokens_per_second <= high
        assert math.isclose(result.efficiency, result.speedup_vs_plain / result.tokens_per_step)
        assert result.tokens_per_step >= 1.0
        assert len(result.acceptance_per_position) == result.masks or result.decoder == PLANNED
        assert result.first_token_seconds > 0
        assert result.peak_memory_bytes is None or result.peak_memory_bytes > 2**20
        assert all(0 <= share <= 1 for share in result.acceptance_per_position)
        assert 0 <= result.repeated_4grams < 1
    loops = {
        (r.domain, r.batch_size): {
            other.repeated_4grams
            for other in measured.results
            if (other.domain, other.batch_size) == (r.domain, r.batch_size)
        }
        for r in measured.results
    }
    assert all(len(shares) == 1 for shares in loops.values()), "the share is the base's own, so it is one number"


def test_the_summary_is_the_geometric_mean_of_the_domains(measured: Bench) -> None:
    first = measured.results[0]

    def result(domain: str, size: int, decoder: str, speedup: float, length: int = 0) -> Result:
        return replace(
            first, domain=domain, batch_size=size, decoder=decoder, speedup_vs_plain=speedup, lengthened_to=length
        )

    some = (
        result("odd", 1, "linear", 2.0),
        result("odd", 1, PLAIN, 1.0),
        result("even", 1, "linear", 8.0),
        replace(result("odd", 1, "linear", 3.0), masks=2),
        result("odd", 4, "linear", 0.5),
        result("odd", 4, "linear", 7.0, length=64),
    )
    found = Bench(some, {})
    assert found.speedups(64) == {4: {"linear": pytest.approx(7)}}
    assert found.speedups(0) == {1: {"linear": pytest.approx(4), "linear 2": pytest.approx(3)}, 4: {"linear": 0.5}}


def test_planned_that_took_plain_steps_is_no_speedup(measured: Bench) -> None:
    """At one token a step it is plain decoding, so what it differs by is noise; other layouts lose time for real."""
    noise = replace(measured.results[0], decoder=PLANNED, masks=0, tokens_per_step=1.0, speedup_vs_plain=1.05)
    gains = replace(noise, tokens_per_step=1.2)
    loses = replace(noise, decoder="quadratic", speedup_vs_plain=0.7)
    assert [one.over_plain for one in (noise, gains, loses)] == ["as plain", "1.05", "0.70"]
    size = noise.batch_size
    assert Bench((noise,), {}).speedups(noise.lengthened_to)[size][PLANNED] == 1.0
    assert Bench((gains,), {}).speedups(noise.lengthened_to)[size][PLANNED] == pytest.approx(1.05)


def test_provenance_names_settings_base_and_adapter(measured: Bench) -> None:
    settings = measured.provenance["settings"]
    loaded = {"device": "cpu", "dtype": "float32"}
    assert settings == {"base": "toy", "adapter": {"made": "by hand"}} | loaded | asdict(CONFIG)
    assert {"commit", "versions", "machine", "made"} <= measured.provenance.keys()
