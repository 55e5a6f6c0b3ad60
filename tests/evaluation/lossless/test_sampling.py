"""The trial of sampling: it says so when sampling is biased, and when it could not have told."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from foresay.data.prompts import Prompt
from foresay.decoding.config import SampleConfig
from foresay.decoding.sampling.chooser import Sampled
from foresay.decoding.sampling.randomness import BiasedNumbers, SeededNumbers
from foresay.evaluation.baseline import plain_answer, sampled_answers
from foresay.evaluation.config import CheckConfig
from foresay.evaluation.lossless import sampling as trial_module
from foresay.evaluation.lossless.proof import Proof
from foresay.evaluation.lossless.sampling import ENDED, RATIO, SamplingReport, Trial, broken_chooser_of, check_sampling
from foresay.evaluation.statistics import holm
from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from tests.support.toys import LLAMA, VOCABULARY, random_prompts, with_adapter

SAMPLE = SampleConfig(temperature=0.5, seed=3)
[PROMPT] = random_prompts([4])


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    """A toy; nobody changes it."""
    return MultiTokenModel(with_adapter(LLAMA.model(), masks=3), None, "toy")


@pytest.fixture
def trial(model: MultiTokenModel) -> Trial:
    return Trial(model, PROMPT, SAMPLE, samples=100)


def report(**found: Any) -> SamplingReport:
    sound: dict[str, Any] = {"p_values": {"linear": 0.4, "tree": 0.5}, "corrected": {"linear": 0.8, "tree": 0.8}}
    settings = {"masks": 3, "samples": 9, "reference_samples": 27, "tokens": 6, "classes": 32, "permutations": 99}
    figures = {"shift": 0.2, "power": 0.8, "control": 1e-5}
    return SamplingReport(**{"prompt": PROMPT, "sample": SAMPLE} | settings | figures | sound | found)


def test_a_sound_decoder_shows_no_bias(trial: Trial) -> None:
    watched: list[str] = []
    found = trial.run(["linear", "quadratic"], watched.append)
    assert watched == ["transformers", "control", "linear", "quadratic"]
    assert (found.biased, found.has_power) == ([], True)
    assert found.sentence.startswith("Sampling shows no bias: linear p = ")
    assert (found.samples, found.reference_samples, found.prompt, found.masks) == (100, 100 * RATIO, PROMPT, 3)
    assert found.corrected.keys() == found.p_values.keys() == {"linear", "quadratic"}
    assert list(found.corrected.values()) == holm(list(found.p_values.values())) != list(found.p_values.values())
    assert trial.run(["linear", "quadratic"]) == found


def test_a_broken_verifier_is_biased(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SeededNumbers, "accept", lambda self, chances, places: chances >= 0)
    found = trial.run(["linear", "quadratic"])
    assert found.biased == ["linear", "quadratic"]
    assert found.sentence.startswith("Sampling is BIASED in linear and quadratic: linear p = ")


def test_with_too_few_answers_the_test_has_no_power(trial: Trial) -> None:
    found = replace(trial, samples=3).run(["linear"])
    assert (found.biased, found.has_power) == ([], False)
    assert "the test has no power" in found.sentence


def test_a_proof_without_power_says_so_at_once() -> None:
    greedy, whole = SimpleNamespace(bugs=0, sentence="Equal."), SimpleNamespace(holds=True, sentence="BaseUnchanged.")
    assert Proof(greedy, whole, report()).sentence == "Equal."  # type: ignore[arg-type]
    assert "Equal. Sampling: the test has no power" in Proof(greedy, whole, report(control=0.02)).sentence  # type: ignore[arg-type]


def test_what_is_said() -> None:
    assert report().sentence == (
        "Sampling shows no bias: linear p = 0.8, tree p = 0.8; a verifier broken on purpose p = 1e-05."
    )
    biased = report(corrected={"linear": 0.4, "tree": 0.0099}, control=1.0)
    assert biased.biased == ["tree"]
    assert biased.sentence == "Sampling is BIASED in tree: linear p = 0.4, tree p = 0.0099."
    assert report(corrected={"linear": 0.01}).biased == []
    assert not report(control=1e-4).has_power
    assert "(p = 0.02); give another prompt" in report(control=0.02).sentence


def test_answers_have_the_same_shape_in_any_batch(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "SCORES", VOCABULARY * 4 * 7)
    for drawn, answers in ((trial.answers("linear"), 100), (trial.control(), 100), (trial.reference(), 300)):
        assert drawn.shape == (answers, 5)
        # Batches of seven, each from a seed of its own.
        assert len(np.unique(drawn, axis=0)) > answers / 2


def test_what_is_compared_shares_no_draws(trial: Trial) -> None:
    drawn = [trial.answers("plain"), trial.answers("linear"), trial.control(), trial.reference()]
    for place, one in enumerate(drawn):
        for other in drawn[place + 1 :]:
            assert (one == other[: len(one)]).all(axis=1).mean() < 0.1
    other_seed = replace(trial, sample=replace(SAMPLE, seed=4))
    assert (other_seed.answers("linear") != drawn[1]).any()
    assert (other_seed.reference() != drawn[3]).any()


def test_ended_answers_are_filled_up(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    stops = list(range(0, VOCABULARY, 3))
    monkeypatch.setattr(trial.model.base.model.generation_config, "eos_token_id", stops)
    for drawn in (trial.answers("quadratic"), trial.reference()):
        ended = drawn == ENDED
        assert ended.any()
        assert not ended.all()
        assert (np.diff(ended.astype(int), axis=1) >= 0).all(), "nothing follows the end"
        assert (ended[:, 1:] == (ended[:, :-1] | np.isin(drawn[:, :-1], stops))).all()


SURE = [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-3}]
"""Settings that leave nothing but the best token."""


@pytest.mark.parametrize("settings", SURE, ids=str)
def test_transformers_draws_by_the_settings_alone(
    model: MultiTokenModel, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = SampleConfig(**{"temperature": 1.0} | settings)
    before = torch.get_rng_state()
    best = plain_answer(model, PROMPT, 5)
    monkeypatch.setattr(model.base.model.generation_config, "repetition_penalty", 50.0)
    assert sampled_answers(model, PROMPT, sure, 3, 5) == [best] * 3
    assert torch.equal(before, torch.get_rng_state())


def test_biased_numbers_keep_every_draft_and_draw_as_before() -> None:
    chances, places = torch.tensor([[0.0, 0.5], [1.0, 0.1]]), torch.tensor([[0, 1], [-1, 0]])
    distributions = torch.full((2, 2, 8), 1 / 8)
    loaded, sound = BiasedNumbers(SeededNumbers(5, [0, 1])), SeededNumbers(5, [0, 1])
    for rng in (loaded, sound):
        rng.begin(3, chances.device)
    assert loaded.accept(chances, places).all()
    assert not sound.accept(chances, places).all()
    assert torch.equal(loaded.pick(distributions, places + 1), sound.pick(distributions, places + 1))
    for rng in (loaded, sound):
        rng.settle([3, 1])
        rng.select([1])
        rng.begin(2, chances.device)
    assert torch.equal(loaded.pick(distributions[:1], places[:1]), sound.pick(distributions[:1], places[:1]))
    chooser = broken_chooser_of(SAMPLE)([0])
    assert isinstance(chooser, Sampled)
    assert isinstance(chooser.rng, BiasedNumbers)


# As part of `check`.


def test_the_shortest_prompt_is_sampled(model: MultiTokenModel) -> None:
    prompts = [Prompt(ids, "random", "") for ids in random_prompts([9, 4, 6])]
    found = check_sampling(model, prompts, SAMPLE, CheckConfig(shift=0.5, layouts=("linear",)))
    assert found is not None
    assert found.prompt == prompts[1].ids
    assert 0.49 < found.shift <= 0.5
    assert found.p_values.keys() == {"linear"}
    assert check_sampling(model, prompts, replace(SAMPLE, temperature=0), CheckConfig()) is None


def test_a_smaller_shift_asks_for_more_answers(model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Trial] = []
    monkeypatch.setattr(Trial, "run", lambda self, layouts, watch: asked.append(self))
    for settings in ({}, {"shift": 0.05}, {"layouts": ("linear",)}, {"masks": 2}):
        check_sampling(model, [Prompt(PROMPT, "", "")], SAMPLE, CheckConfig(**settings))
    usual, finer, fewer, _ = asked
    assert finer.samples == pytest.approx(25 * usual.samples, rel=0.01)
    assert fewer.samples < usual.samples
    assert [trial.masks for trial in asked] == [3, 3, 3, 2]


@pytest.mark.parametrize("shift", [0, -0.1, 0.6])
def test_an_impossible_shift_is_refused(shift: float) -> None:
    with pytest.raises(ConfigError, match=f"shift is {shift}; give a total variation above 0, at most 0.5"):
        CheckConfig(shift=shift)
