"""The verb `bench`: who is measured beside whom. Seconds are a clock's business and not asserted."""

import math
from collections import Counter
from dataclasses import asdict

import pytest

from foresay.benchmark import PLAIN, TRANSFORMERS, Bench, BenchConfig, Decoder, bench, decoders_of
from foresay.model import MultiTokenModel
from foresay.prompts import Prompt
from toys import LLAMA, random_prompts, with_adapter

KEYS = {
    "decoder",
    "masks",
    "batch_size",
    "prompt_tokens",
    "dtype",
    "domain",
    "tokens_per_second",
    "tokens_per_second_spread",
    "tokens_per_step",
    "acceptance_per_position",
    "repeated_4grams",
    "speedup_vs_plain",
    "speedup_vs_transformers",
    "efficiency",
}
CONFIG = BenchConfig(masks=(1, 3), batch_size=2, max_new_tokens=12, repeats=3)
NAMES = [TRANSFORMERS, PLAIN, "linear", "linear", "quadratic", "quadratic"]
PROMPTS = [
    Prompt(ids, domain, "")
    for domain, lengths in (("odd", (3, 7, 5)), ("even", (4, 8)))
    for ids in random_prompts(lengths, seed=len(domain))
]


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel(with_adapter(LLAMA.model(), masks=3), None, "toy", {"made": "by hand"})


@pytest.fixture(scope="module")
def watched() -> list[str]:
    return []


@pytest.fixture(scope="module")
def measured(model: MultiTokenModel, watched: list[str]) -> Bench:
    return bench(model, PROMPTS, CONFIG, watched.append)


def test_every_decoder_stands_beside_plain_and_transformers(model: MultiTokenModel) -> None:
    decoders = decoders_of(model, CONFIG)
    assert decoders == [
        Decoder(TRANSFORMERS),
        Decoder(PLAIN),
        Decoder("linear", 1),
        Decoder("linear", 3),
        Decoder("quadratic", 1),
        Decoder("quadratic", 3),
    ]
    assert decoders_of(model, BenchConfig(layouts=("linear",)))[2:] == [Decoder("linear", 3)]


def test_a_tree_is_measured_like_any_layout(model: MultiTokenModel) -> None:
    config = BenchConfig(layouts=("tree",), batch_size=2, max_new_tokens=12, repeats=1)
    result = bench(model, PROMPTS[:3], config).results[-1]
    assert (result.decoder, result.masks, result.identical) == ("tree", 3, 3)
    assert len(result.acceptance_per_position) == 3


def test_every_result_has_its_facts(measured: Bench) -> None:
    assert [(result.domain, result.decoder) for result in measured.results] == [
        (domain, name) for domain in ("odd", "even") for name in NAMES
    ]
    for result in measured.results:
        assert asdict(result).keys() >= KEYS
        assert (result.batch_size, result.dtype) == (2, "float32")
        assert (result.prompts, result.prompt_tokens) == {"odd": (3, 5.0), "even": (2, 6.0)}[result.domain]


def test_every_answer_is_identical(measured: Bench) -> None:
    for result in measured.results:
        assert result.identical == result.prompts, result.decoder


def test_the_reference_is_transformers(model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [[7] * 8, [1, 2, 3], [4, 5, 6, 8, 9]]
    monkeypatch.setattr("foresay.benchmark.plain_answers", lambda model, group, most: answers[: len(group)])
    found = bench(model, PROMPTS[:3], BenchConfig(max_new_tokens=3, repeats=1, batch_size=3, layouts=("linear",)))
    assert [result.identical for result in found.results] == [3, 0, 0]
    assert [result.repeated_4grams for result in found.results] == [4 / 7] * 3


def test_a_decoder_is_as_fast_as_itself(measured: Bench) -> None:
    for result in measured.results:
        if result.decoder == PLAIN:
            assert result.speedup_vs_plain == 1.0
            assert result.tokens_per_step == 1.0
            assert result.efficiency == 1.0
        if result.decoder == TRANSFORMERS:
            assert result.speedup_vs_transformers == 1.0


def test_figures_fit_together(measured: Bench) -> None:
    for result in measured.results:
        low, high = result.tokens_per_second_spread
        assert 0 < low <= result.tokens_per_second <= high
        assert math.isclose(result.efficiency, result.speedup_vs_plain / result.tokens_per_step)
        assert result.tokens_per_step >= 1.0
        assert len(result.acceptance_per_position) == result.masks
        assert all(0 <= share <= 1 for share in result.acceptance_per_position)
        assert 0 <= result.repeated_4grams < 1
    loops = {
        result.domain: {r.repeated_4grams for r in measured.results if r.domain == result.domain}
        for result in measured.results
    }
    assert all(len(shares) == 1 for shares in loops.values()), "the share is the base's own, so it is one number"


def test_repeats_are_interleaved_and_start_with_another_decoder(measured: Bench, watched: list[str]) -> None:
    assert measured.results
    warm_up, runs = watched[: len(NAMES)], watched[len(NAMES) :]
    assert warm_up == NAMES
    rounds = [runs[start : start + len(NAMES)] for start in range(0, len(runs), len(NAMES))]
    assert len(rounds) == CONFIG.repeats * 2
    for number, order in enumerate(rounds):
        repeat = number // 2
        assert Counter(order) == Counter(NAMES)
        assert order == NAMES[repeat:] + NAMES[:repeat]


def test_provenance_names_settings_base_and_adapter(measured: Bench) -> None:
    settings = measured.provenance["settings"]
    assert settings == {"base": "toy", "adapter": {"made": "by hand"}} | asdict(CONFIG)
    assert {"commit", "versions", "machine", "made"} <= measured.provenance.keys()
