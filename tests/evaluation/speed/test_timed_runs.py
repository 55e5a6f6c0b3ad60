"""The stand: which cases there are, who runs them in which order, and what the clock holds."""

import itertools
from collections import Counter
from typing import Any

import pytest
import torch

from foresay.data.prompts import Prompt
from foresay.decoding.config import DecodeConfig
from foresay.decoding.metrics import tally
from foresay.decoding.planning.acceptance import AcceptanceEstimate
from foresay.decoding.planning.planner import MENU, Cost, Planner
from foresay.evaluation.baseline import plain_answers
from foresay.evaluation.config import BenchConfig
from foresay.evaluation.speed import timed_runs as stand
from foresay.evaluation.speed.timed_runs import (
    LOOKUP,
    PLAIN,
    PLANNED,
    TRANSFORMERS,
    WARM_UP_TOKENS,
    Case,
    Decoder,
    TimedRuns,
    Watching,
    cases_of,
    decoders_of,
)
from foresay.foundation.errors import ConfigError
from foresay.model import MultiTokenModel
from tests.support.toys import LLAMA, own_output, random_prompts, with_adapter

IDS = random_prompts((3, 7, 5))
PROMPTS = [Prompt(IDS[0], "odd", ""), Prompt(IDS[1], "even", ""), Prompt(IDS[2], "odd", "")]


@pytest.fixture(scope="module")
def model() -> MultiTokenModel:
    return MultiTokenModel(with_adapter(LLAMA.model(), masks=3), None, "toy")


@pytest.fixture(autouse=True)
def planners(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Nothing is measured; each planner that was asked for: (batch size, longest prompt)."""
    asked = []

    def planner_for(core: Any, batch_size: int, length: int, *more: Any) -> Planner:
        asked.append((batch_size, length))
        return Planner({entry: Cost(1.0, 1.0) for entry in MENU}, AcceptanceEstimate((0.5, 0.4, 0.3)))

    monkeypatch.setattr("foresay.model.planner_for", planner_for)
    return asked


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sizes": ()}, "batch_sizes is empty; give at least one number"),
        ({"batch_sizes": (1, 0)}, "batch_sizes has 0; give 1 or more"),
        ({"prompt_tokens": (-1,)}, "prompt_tokens has -1; give 0 or more"),
        ({"lookup_tokens": -1}, "lookup_tokens is -1"),
        ({"repeats": 0}, "repeats is 0"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BenchConfig(**settings)


def test_every_decoder_stands_beside_plain_and_transformers(model: MultiTokenModel) -> None:
    config = BenchConfig(masks=(1, 3))
    ours = [Decoder("linear", 1), Decoder("linear", 3), Decoder("quadratic", 1), Decoder("quadratic", 3)]
    assert decoders_of(model, config, 2) == [Decoder(TRANSFORMERS), Decoder(PLAIN), *ours, Decoder(PLANNED)]
    assert decoders_of(model, BenchConfig(layouts=("linear",)), 2)[2:] == [Decoder("linear", 3)]
    again = BenchConfig(layouts=("plain", "linear", "linear", "planned"), masks=(2, 2))
    assert decoders_of(model, again, 2)[1:] == [Decoder(PLAIN), Decoder("linear", 2), Decoder(PLANNED)]


def test_prompt_lookup_stands_there_where_transformers_has_it(model: MultiTokenModel) -> None:
    assert Decoder(LOOKUP) in decoders_of(model, BenchConfig(), 1)
    assert Decoder(LOOKUP) not in decoders_of(model, BenchConfig(), 2)
    assert Decoder(LOOKUP) not in decoders_of(model, BenchConfig(lookup_tokens=0), 1)


def test_there_is_a_case_for_every_length_batch_size_and_domain() -> None:
    cases = cases_of(PROMPTS, BenchConfig(batch_sizes=(1, 2, 1), prompt_tokens=(0, 9)))
    expected = itertools.product((0, 9), (1, 2), ("odd", "even"))
    assert [(case.lengthened_to, case.batch_size, case.domain) for case in cases] == list(expected)
    assert cases[0].prompts == (IDS[0], IDS[2])
    assert all(len(prompt) == 9 for case in cases[4:] for prompt in case.prompts)


def test_the_last_batch_is_filled_up_from_the_first_prompts() -> None:
    a, b, c = IDS
    assert Case("x", 0, 2, (a, b, c)).batches == [[a, b], [c, a]]
    assert Case("x", 0, 5, (a, b)).batches == [[a, b, a, b, a]]
    assert Case("x", 0, 1, (a, b)).batches == [[a], [b]]


def test_decoders_take_turns_and_each_repeat_starts_with_another(model: MultiTokenModel) -> None:
    config = BenchConfig(layouts=("linear", "planned"), max_new_tokens=2, repeats=3)
    told: list[tuple[str, int, int]] = []
    cases = cases_of(PROMPTS, config)
    turns = TimedRuns(model, config, Watching(lambda *news: told.append(news))).run(cases)
    names = [TRANSFORMERS, LOOKUP, PLAIN, "linear", PLANNED]
    orders = [names[shift:] + names[:shift] for shift in (0, 0, 1, 2)]
    assert [name for name, *_ in told] == [name for order in orders for _ in cases for name in order]
    assert [news[1:] for news in told] == [(done, 40) for done in range(1, 41)]
    assert {len(some) for own in turns.values() for some in own.values()} == {3}


def test_warm_up_is_short_and_is_not_counted(model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, int]] = []
    real = TimedRuns.decode

    def decode(self: TimedRuns, batch: Any, decoder: Decoder, max_new_tokens: int) -> Any:
        said.append((len(batch), max_new_tokens))
        return real(self, batch, decoder, max_new_tokens)

    monkeypatch.setattr(TimedRuns, "decode", decode)
    config = BenchConfig(layouts=(), lookup_tokens=0, max_new_tokens=WARM_UP_TOKENS + 1, repeats=1)
    [case] = cases_of(PROMPTS[:1] + PROMPTS[2:], config)
    turns = TimedRuns(model, config, Watching()).run([case])
    assert Counter(said) == {(1, WARM_UP_TOKENS): 2, (1, WARM_UP_TOKENS + 1): 4}
    assert {len(own[0].runs) for own in turns[case].values()} == {2}


@pytest.mark.parametrize("decoder", [TRANSFORMERS, LOOKUP, PLAIN, "linear", "quadratic", PLANNED])
def test_the_clock_starts_with_the_batch_and_tells_the_first_token(
    decoder: str, model: MultiTokenModel, planners: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(stand, "now", lambda device: float(next(ticks)))
    config = BenchConfig(max_new_tokens=8)
    run = TimedRuns(model, config, Watching()).decode([IDS[0]], Decoder(decoder), 8)
    # Three looks at the clock: at the start, at the first token, at the end.
    assert (run.first_token_seconds, run.seconds, next(ticks)) == (1.0, 2.0, 3)
    assert run.answers == [own_output(LLAMA, IDS[0], 11)]
    assert [generation.tokens for generation in run.generations] == ([] if run.generations == [] else run.answers)
    assert bool(run.generations) == (decoder not in (TRANSFORMERS, LOOKUP))
    assert planners == ([(1, 3)] if decoder == PLANNED else [])
    if decoder == TRANSFORMERS:
        assert run.steps == 8
    if run.generations:
        assert run.steps == tally(run.generations).steps


def test_transformers_is_heard_in_a_batch_too(model: MultiTokenModel) -> None:
    heard: list[int] = []
    answers = plain_answers(model, IDS, 6, heard=lambda: heard.append(1))
    assert len(heard) == 6
    config = DecodeConfig(layout="plain", max_new_tokens=6)
    assert answers == [generation.tokens for generation in model.decode(IDS, config)]


def test_prompt_lookup_says_the_same_in_fewer_steps() -> None:
    looping = LLAMA.model()
    with torch.no_grad():
        for parameter in looping.parameters():
            parameter.mul_(0.1)
    model, heard = MultiTokenModel(with_adapter(looping), None, "toy"), list[int]()
    plain = plain_answers(model, [IDS[0]], 21)
    assert plain_answers(model, [IDS[0]], 21, lookup_tokens=10, heard=lambda: heard.append(1)) == plain
    assert 0 < len(heard) < len(plain[0]) == 21
