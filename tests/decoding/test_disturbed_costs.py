"""Costs that were measured while other programs took the processor: told apart, used for want of better, and mended."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from foresay.decoding import step_costs
from foresay.decoding.cost_files import Measured, keep, place_of, read
from foresay.decoding.planners import AGAIN, TRIES, CostBook, Planners
from foresay.decoding.planning.planner import LOOKUP, MENU, PLAIN, Cost, Costs, Entry
from foresay.decoding.session import Session
from foresay.decoding.step_costs import calibrate, curve_for
from foresay.foundation import machine as machine_module
from foresay.models.masks.model import MaskModel
from tests.support.toys import LLAMA, with_adapter

OWN = [entry for entry in MENU if entry.masks <= 4]
QUADRATIC = Entry("quadratic", 2)
WRONG: Costs = {PLAIN: Cost(9.0, 9.0), QUADRATIC: Cost(3.0, 3.0)}
"""Drafts cost less than none: no undisturbed machine says so."""


class Machine:
    """Its laps and what their threads waited: `laps` gives the seconds of each and whether others ran."""

    def __init__(self, laps: Iterator[tuple[float, bool]]) -> None:
        self.laps, self.seconds, self.made = laps, 0.0, 0

    def lap(self, session: Session, batch_size: int, context: int) -> Cost:
        """Without drafts and with them, equally long."""
        seconds, others = next(self.laps)
        self.made += 1
        self.seconds += others * seconds
        return Cost(seconds, seconds, 1)

    def waited(self) -> float:
        """As `foundation.machine` counts it."""
        return self.seconds


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MaskModel:
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path))
    return with_adapter(LLAMA.model(), masks=4)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterator[tuple[float, bool]]], Machine]:
    def of(laps: Iterator[tuple[float, bool]]) -> Machine:
        made = Machine(laps)
        monkeypatch.setattr(step_costs, "lap", made.lap)
        monkeypatch.setattr(machine_module, "waited", made.waited)
        monkeypatch.setattr(step_costs, "ROUNDS", 6)
        return made

    return of


Machines = Callable[[Iterator[tuple[float, bool]]], Machine]


def steady(seconds: float, others: bool) -> Iterator[tuple[float, bool]]:
    while True:
        yield seconds, others


def some_calm(share: int) -> Iterator[tuple[float, bool]]:
    """Each lap that counts comes after one that warms up. In every `share`-th round nobody else runs."""
    turn = 0
    while True:
        others = (turn // len(OWN)) % share != 0
        yield from ((5.0, True), (5.0 if others else 1.0, others))
        turn += 1


def path_of(model: MaskModel) -> Path:
    return place_of(model, *step_costs.rounded(model, 1, 9))


def test_laps_that_others_disturbed_do_not_count_where_a_few_are_calm(model: MaskModel, machine: Machines) -> None:
    machine(some_calm(2))
    curve = calibrate(model, 1, 9, seconds=1e9)
    assert curve.calm
    assert {cost.drafted for cost in curve.costs.values()} == {1.0}


def test_else_all_count_with_a_warning_and_the_file_says_so(model: MaskModel, machine: Machines) -> None:
    machine(some_calm(6))
    with pytest.warns(UserWarning, match="other programs took the processor .* stop them and run foresay calibrate"):
        curve = calibrate(model, 1, 9, seconds=1e9)
    assert not curve.calm
    assert {cost.drafted for cost in curve.costs.values()} == {5.0}
    assert read(path_of(model)) == Measured(curve.costs, calm=False)


def test_what_was_disturbed_is_measured_again_and_what_is_calm_stays(model: MaskModel, machine: Machines) -> None:
    keep(path_of(model), Measured(WRONG, calm=False))
    made = machine(steady(0.01, others=False))
    calm = curve_for(model, 1, 9).costs
    assert set(calm) == set(OWN)
    assert set(calm.values()) == {Cost(0.01, 0.01, 1)}
    before = made.made
    assert curve_for(model, 1, 9).costs == calm
    assert made.made == before
    machine(steady(7.0, others=True))
    with pytest.warns(UserWarning, match="other programs"):
        assert not calibrate(model, 1, 9, seconds=1e9).calm
    assert read(path_of(model)) == Measured(calm), "worse figures do not take its place"


def test_of_two_disturbed_measurements_the_lower_figures_count() -> None:
    former = Measured({PLAIN: Cost(9.0, 1.0, 1), QUADRATIC: Cost(3.0, 3.0, 9)}, calm=False)
    found = Measured({PLAIN: Cost(2.0, 2.0, 1), LOOKUP: Cost(4.0, 4.0, 9)}, calm=False)
    both = {PLAIN: Cost(2.0, 1.0, 1), QUADRATIC: Cost(3.0, 3.0, 9), LOOKUP: Cost(4.0, 4.0, 9)}
    assert found.beside(former) == Measured(both, calm=False)
    assert next(iter(found.beside(former).costs)) == PLAIN


def test_nobody_waits_for_the_second_measurement(model: MaskModel, machine: Machines) -> None:
    """It is planned by what there is, until it is known better."""
    keep(path_of(model), Measured(WRONG, calm=False))
    machine(steady(1.0, others=False))
    planners = Planners(model)
    planner = planners.at(1, 9)
    assert planner is not None
    assert planner.costs == WRONG
    assert planners.reason().endswith("(by costs that were measured while other programs ran)")
    while planners.measure():
        pass
    planner = planners.at(1, 9)
    assert planner is not None
    assert set(planner.costs.values()) == {Cost(1.0, 1.0, 1)}
    assert "other programs" not in planners.reason()
    assert read(path_of(model)) == Measured(planner.costs)


def test_a_machine_that_is_never_calm_is_not_measured_for_ever(model: MaskModel, machine: Machines) -> None:
    machine(steady(1.0, others=True))
    planners = Planners(model)
    planners.at(1, 9)
    while planners.measure():
        pass
    assert CostBook.of(model).tries == {path_of(model): TRIES}


def test_measuring_again_takes_little_of_the_time(model: MaskModel, machine: Machines) -> None:
    keep(path_of(model), Measured(WRONG, calm=False))
    made = machine(steady(1e-6, others=False))
    ticks = iter(range(1_000_000))
    planners = Planners(model, share=1.0, clock=lambda: float(next(ticks)))
    planners.at(1, 9)
    planners.between_steps()
    first = made.made
    for _ in range(400):
        planners.between_steps()
    assert (made.made - first) / 2 == pytest.approx(AGAIN * 400, abs=2)
