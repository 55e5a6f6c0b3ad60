"""Costs that nobody waits for: read from files, measured between steps or while nobody asks, and plain until then."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from foresay.decoding import planners as planners_module
from foresay.decoding import step_costs
from foresay.decoding.config import DecodeConfig, QueueConfig
from foresay.decoding.engine import Engine
from foresay.decoding.generate import generate
from foresay.decoding.live import GenerationHooks
from foresay.decoding.metrics import tally
from foresay.decoding.planners import CostBook, Planners
from foresay.decoding.planning.acceptance import AcceptanceEstimate
from foresay.decoding.planning.planner import MENU, PLAIN, Cost, Entry, Planner
from foresay.decoding.requests import Request
from foresay.decoding.session import Session
from foresay.decoding.step_costs import curve_for
from foresay.decoding.steps import Step
from foresay.models.masks.model import MaskModel
from tests.support.checks import expected_output
from tests.support.toys import LLAMA, own_output, random_prompts, with_adapter


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def model() -> MaskModel:
    return with_adapter(LLAMA.model(), masks=4)


@pytest.fixture
def laps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(batch size, context) of each lap; steps with masks cost as much as those without."""
    driven: list[tuple[int, int]] = []

    def lap(session: Session, batch_size: int, context: int) -> Cost:
        driven.append((batch_size, context))
        return Cost(0.01, 0.01, 1)

    monkeypatch.setattr(step_costs, "lap", lap)
    monkeypatch.setattr(step_costs, "ROUNDS", 6)
    return driven


class Clock:
    """Each look takes a second."""

    seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


def measured(planners: Planners) -> None:
    while planners.measure():
        pass


def test_until_costs_are_known_there_is_no_planner(model: MaskModel, laps: list[tuple[int, int]]) -> None:
    planners = Planners(model)
    assert planners.at(1, 9) is None
    assert "not known yet" in planners.reason()
    turns = 0
    while planners.at(1, 9) is None:
        planners.measure()
        turns += 1
    assert turns == step_costs.USABLE * len([entry for entry in MENU if entry.masks <= 4])
    measured(planners)
    assert planners.at(1, 9) is not None
    assert "pays: a step costs 1.00 plain steps" in planners.reason()


def test_files_are_read_and_others_written(model: MaskModel, laps: list[tuple[int, int]], folder: Path) -> None:
    curve_for(model, 1, 9)
    driven = len(laps)
    assert Planners(model).at(1, 9) is not None
    assert Planners(with_adapter(LLAMA.model(), masks=4)).at(1, 9) is not None, "another process reads the file"
    assert len(laps) == driven
    two = Planners(model)
    assert two.at(2, 9) is None
    measured(two)
    assert len(list(folder.glob("costs-*"))) == 2


def test_the_context_that_is_there_counts_and_the_nearest_stands_for_it(
    model: MaskModel, laps: list[tuple[int, int]]
) -> None:
    planners = Planners(model)
    short, long = (step_costs.rounded(model, 1, length) for length in (9, 500))
    assert short != long
    planners.at(1, 9)
    measured(planners)
    assert set(laps) == {short}
    assert planners.at(1, 500) is planners.at(1, 9), "until the longer one is known"
    measured(planners)
    assert set(laps) == {short, long}
    assert planners.at(1, 500) is not planners.at(1, 9)
    assert planners.at(1, 500).acceptance is planners.at(1, 9).acceptance  # type: ignore[union-attr]


def test_a_larger_batch_stands_for_a_smaller_one_and_not_the_other_way_round(
    model: MaskModel, laps: list[tuple[int, int]]
) -> None:
    planners = Planners(model)
    planners.at(4, 9)
    measured(planners)
    assert planners.at(2, 9) is planners.at(4, 9), "more rows cost more in a larger batch"
    assert planners.at(8, 9) is None


def test_a_cache_that_would_be_too_large_is_not_made(
    model: MaskModel, laps: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planners_module, "MOST_SLOTS", 4 * 128)
    planners = Planners(model)
    planners.at(8, 9)
    planners.at(4, 9)
    measured(planners)
    assert {batch for batch, _ in laps} == {4}
    assert planners.at(8, 9) is None


@pytest.mark.parametrize(("share", "calls"), [(1.0, 40), (0.5, 60), (0.1, 200)])
def test_between_steps_a_share_of_the_time_is_spent(
    model: MaskModel, laps: list[tuple[int, int]], share: float, calls: int
) -> None:
    """Steps take a second each, and so does a turn of the measurement."""
    planners = Planners(model, share=share, clock=Clock())
    planners.at(1, 9)
    held = []
    for _ in range(calls):
        planners.between_steps(lambda: held.append(len(laps)))
    assert len(laps) // 2 == len(held)
    assert len(held) == pytest.approx(share * calls, abs=1)


def test_what_cannot_be_measured_is_said_and_stays_unknown(model: MaskModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Cost:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(step_costs, "lap", fails)
    planners = Planners(model)
    planners.at(1, 9)
    with pytest.warns(UserWarning, match=r"1 sequences after 128 tokens cost could not be measured \(out of memory\)"):
        assert planners.measure()
    assert not planners.measure()
    assert planners.at(1, 9) is None


def test_a_measurement_of_steps_as_they_were_is_dropped(model: MaskModel, laps: list[tuple[int, int]]) -> None:
    planners = Planners(model)
    planners.at(1, 9)
    planners.measure()
    model.shortlist = 5
    Planners(model).at(2, 9)
    book = CostBook.of(model)
    assert len(book.wanted) == 2
    measured(planners)
    assert {batch for batch, _ in laps[2:]} == {2}


def test_an_answer_begins_plain_and_goes_on_as_planned(model: MaskModel, laps: list[tuple[int, int]]) -> None:
    """Costs are made up, so what is chosen is told by them alone; the text is plain's all the way."""
    model.acceptance = (0.9, 0.8, 0.7, 0.6)
    planners = Planners(model, share=1e9)
    [prompt] = random_prompts((9,))
    config = DecodeConfig(layout="planned", max_new_tokens=60)
    [said] = generate(model, [prompt], config, GenerationHooks(planner=planners))
    assert said.tokens == own_output(LLAMA, prompt, 69)
    layouts = [step.layout for step in said.steps]
    assert layouts[0] == ""
    assert layouts[1] == PLAIN.label
    assert layouts[-1] != PLAIN.label
    assert tally([said]).layouts.keys() >= {PLAIN.label, layouts[-1]}


def test_real_measurements_between_steps_change_no_token(model: MaskModel) -> None:
    [prompt] = random_prompts((9,))
    config = DecodeConfig(layout="planned", max_new_tokens=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [said] = generate(model, [prompt], config)
    assert said.tokens == own_output(LLAMA, prompt, 49)


def test_an_engine_is_open_at_once_and_measures_while_nobody_asks(
    model: MaskModel, laps: list[tuple[int, int]]
) -> None:
    engine = Engine.open(model, DecodeConfig(), QueueConfig(sequences=3))
    assert laps == []
    [prompt] = random_prompts((7,))
    engine.submit([Request(prompt, 9)])
    steps: list[Step] = []
    while engine.busy:
        steps += [told.step for told in engine.step()]
    assert [token for step in steps for token in step.tokens] == expected_output(
        model, LLAMA, prompt, DecodeConfig(max_new_tokens=9)
    )
    assert {step.layout for step in steps} == {"", PLAIN.label}
    while engine.measure():
        pass
    assert {batch for batch, _ in laps} == {1, 2, 4}
    fixed = Engine.open(model, DecodeConfig(layout="quadratic"), QueueConfig(sequences=3))
    assert not fixed.measure()


def test_the_label_of_a_step_is_its_layouts(model: MaskModel) -> None:
    [prompt] = random_prompts((7,))
    [said] = generate(model, [prompt], DecodeConfig(layout="quadratic", masks=2, max_new_tokens=9))
    assert [step.layout for step in said.steps[:2]] == ["", Entry("quadratic", 2).label]


class BySize:
    """Drafts pay for a text alone."""

    def at(self, sequences: int, length: int) -> Planner:
        """Costs of a batch of so many."""
        quadratic = Entry("quadratic", 2)
        seconds = {PLAIN: Cost(1.0, 1.0), quadratic: Cost(1.0, 1.0) if sequences == 1 else Cost(9.0, 9.0)}
        return Planner(seconds, AcceptanceEstimate((0.9, 0.8)))


def test_a_newcomer_drafts_only_what_pays_in_the_batch_that_it_joins(model: MaskModel) -> None:
    """Drafts of one text widen the step of all."""
    engine = Engine(model, DecodeConfig(), QueueConfig(sequences=4), BySize())
    prompts = random_prompts((7, 9))
    first, said = engine.submit([Request(prompts[0], 12)])[0], dict[int, list[Step]]()
    for turn in range(40):
        if turn == 3:
            engine.submit([Request(prompts[1], 12)])
        for told in engine.step():
            said.setdefault(told.ticket, []).append(told.step)
    second = max(said)
    assert [[token for step in said[ticket] for token in step.tokens] for ticket in (first, second)] == [
        own_output(LLAMA, prompt, len(prompt) + 12) for prompt in prompts
    ]
    assert said[first][1].drafted > 0, "alone it drafts"
    assert said[second][1].drafted == 0
