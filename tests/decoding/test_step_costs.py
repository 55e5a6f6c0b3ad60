"""What steps cost: who is measured when and in which state, how long it may take, and files that cannot be trusted."""

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from foresay.decoding import step_costs as calibrate
from foresay.decoding.cost_files import Measured
from foresay.decoding.planning.planner import MENU, PLAIN, Cost, Costs, Entry, expected_rate
from foresay.decoding.session import Session
from foresay.decoding.step_costs import (
    CONTEXTS,
    Curve,
    curve_for,
    forecast,
    known_acceptance,
    measure,
    planner_for,
    rounded,
)
from tests.support.toys import LLAMA, adapted, with_adapter

ROWS = {"plain": lambda k: 1 + k, "linear": lambda k: 2 * k + 1, "quadratic": lambda k: (k + 1) ** 2}
COSTS: Costs = {entry: Cost(1.0 + entry.masks, 1.0, 1 + entry.masks) for entry in MENU}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Each measurement that was made: (batch size, context); all give `COSTS`."""
    calls = []

    def made(model: Any, batch_size: int, context: int, *more: Any) -> Any:
        calls.append((batch_size, context))
        return SimpleNamespace(found=lambda: Measured(COSTS), rounds=lambda: (COSTS,))

    monkeypatch.setattr(calibrate, "measured", made)
    return calls


@pytest.fixture
def laps(monkeypatch: pytest.MonkeyPatch) -> list[Entry]:
    """The entry of each lap; a lap takes two seconds."""
    driven = []

    def lap(session: Session, batch_size: int, context: int) -> Cost:
        assert session.fixed is not None
        driven.append(session.fixed)
        return Cost(1.0, 1.0, 1)

    monkeypatch.setattr(calibrate, "lap", lap)
    return driven


def test_costs_are_measured_once(folder: Path, measured: list[tuple[int, int]]) -> None:
    model = adapted(LLAMA)
    assert curve_for(model, 3, 20) == Curve(4, 128, COSTS)
    assert curve_for(model, 4, 30) == Curve(4, 128, COSTS)
    assert measured == [(4, 128)]
    calibrate.calibrate(model, 4, 30)
    curve_for(model, 5, 30)
    assert measured == [(4, 128), (4, 128), (8, 128)]
    assert len(list(folder.iterdir())) == 2


def test_batch_and_context_are_rounded_up_within_the_base() -> None:
    model = adapted(LLAMA)
    assert [rounded(model, size, 1)[0] for size in (1, 2, 3, 4, 5, 16)] == [1, 2, 4, 4, 8, 16]
    contexts = [rounded(model, 1, length)[1] for length in (1, CONTEXTS[0], CONTEXTS[0] + 1)]
    assert contexts[:2] == [CONTEXTS[0]] * 2
    assert CONTEXTS[0] < contexts[2] < model.base.context


def _file(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps({"calm": True, "rows": rows}).encode()


TORN = {
    "empty": b"",
    "half": b'{"calm": true, "rows": [{"entry": {"layout": "pl',
    "not text": b"\xff\xfe\x00",
    "null": b"null",
    "other": b'{"plain": 1}',
    "numbers": b"[1, 2]",
    "of another method": json.dumps([{"entry": asdict(PLAIN), "cost": asdict(Cost(1, 1))}]).encode(),
    "no word on other programs": b'{"rows": [{"entry": {"layout": "plain"}, "cost": {"drafted": 1, "undrafted": 1}}]}',
    "no cost": b'{"calm": true, "rows": [{"entry": {"layout": "plain", "masks": 0}}]}',
    "no plain": _file([{"entry": asdict(MENU[1]), "cost": asdict(Cost(1, 1))}]),
    "unknown layout": _file(
        [{"entry": asdict(e), "cost": asdict(Cost(1, 1))} for e in (PLAIN, Entry("zigzag", 1))]  # type: ignore[arg-type]
    ),
    **{
        f"{name} {value}": _file(
            [{"entry": asdict(PLAIN), "cost": {"drafted": 1, "undrafted": 1, "rows": 1} | {name: value}}]
        )
        for name, value in [("drafted", 0), ("drafted", -1), ("undrafted", float("nan")), ("drafted", "1"), ("rows", 0)]
    },
}


@pytest.mark.parametrize("name", TORN)
def test_a_torn_file_is_measured_anew(name: str, folder: Path, measured: list[tuple[int, int]]) -> None:
    model = adapted(LLAMA)
    curve_for(model, 1, 9)
    [path] = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(TORN[name])
    assert curve_for(model, 1, 9).costs == COSTS
    assert len(measured) == 2
    assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_a_warning(
    folder: Path, measured: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("FORESAY_CACHE", str(folder / "file"))
    with pytest.warns(UserWarning, match="point FORESAY_CACHE to a folder that can be written"):
        first = curve_for(adapted(LLAMA), 1, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert curve_for(adapted(LLAMA), 1, 9) == first
    assert len(measured) == 1
    (folder / "file").unlink()
    calibrate.calibrate(adapted(LLAMA), 1, 9)
    (path,) = (folder / "file").iterdir()
    path.unlink()
    curve_for(adapted(LLAMA), 1, 9)
    assert len(measured) == 3, "what can be kept is not remembered beside the folder"


def test_what_costs_depend_on_is_in_the_name(
    folder: Path, measured: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    float32 = with_adapter(LLAMA.model())
    curve_for(float32, 1, 9)
    curve_for(with_adapter(LLAMA.model()), 1, 9)
    assert len(measured) == 1
    for other in (
        with_adapter(LLAMA.model().to(torch.bfloat16)),
        with_adapter(LLAMA.model(), masks=4),
        with_adapter(LLAMA.model(num_hidden_layers=1)),
    ):
        curve_for(other, 1, 9)
    float32.model.set_attn_implementation("eager")
    curve_for(float32, 1, 9)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    curve_for(float32, 1, 9)
    assert len(measured) == 6


def test_entries_take_turns_and_each_warms_up(laps: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "ROUNDS", 3)
    assert measure(adapted(LLAMA), 1, 8, seconds=1e9).keys() == set(MENU)
    assert laps == [entry for _ in range(3) for entry in MENU for _ in range(2)]


def test_time_is_bounded_by_leaving_entries_out(laps: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "ROUNDS", 3)
    assert list(measure(adapted(LLAMA), 1, 8, seconds=10.0)) == list(MENU[:3])
    assert len(laps) == 6
    laps.clear()
    assert list(measure(adapted(LLAMA), 1, 8, seconds=1e-9)) == [PLAIN]
    curve = calibrate.calibrate(adapted(LLAMA), 1, 8, seconds=10.0)
    assert (tuple(curve.costs), curve.left_out) == (MENU[:3], MENU[3:])
    assert curve.rounds == (), "no round was whole"
    whole = calibrate.calibrate(adapted(LLAMA), 1, 8, seconds=1e9)
    assert (whole.left_out, {len(round) for round in whole.rounds}) == ((), {len(MENU)})
    laps.clear()
    measure(adapted(LLAMA), 1, 8, seconds=4.0 * (len(MENU) + 1))
    assert len(laps) == 2 * (len(MENU) + 1)


def test_only_the_second_lap_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9.0, 1.0] * len(MENU))
    monkeypatch.setattr(calibrate, "lap", lambda *_: Cost(lap := next(seconds), lap, 1))
    assert set(measure(adapted(LLAMA), 1, 8, seconds=1e9).values()) == {Cost(1.0, 1.0, 1)}


def test_disturbed_steps_do_not_count() -> None:
    times = [5.0, 1.0, 9.0, 2.0, 90.0]
    found = calibrate._undisturbed([Cost(seconds, 10 * seconds, 7) for seconds in times])
    assert found == Cost(2.0, 20.0, 7)


def test_the_share_that_is_done_grows_to_one(laps: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "ROUNDS", 2)
    for seconds in (10.0, 1e9):
        shares: list[float] = []
        measure(adapted(LLAMA), 1, 8, seconds, shares.append)
        assert shares[0] == 0.0
        assert shares[-1] == 1.0
        assert shares == sorted(shares)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_lap_is_a_step_without_drafts_and_one_with_all(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Entry | None, list[tuple[int, int]]]] = []
    real = Session.step

    def step(self: Session) -> Any:
        seen.append((self.fixed, [(live.row.past, live.row.drafted) for live in self.live]))
        return real(self)

    monkeypatch.setattr(Session, "step", step)
    costs = measure(adapted(LLAMA), batch_size, context=20)
    assert {entry: cost.rows for entry, cost in costs.items()} == {e: ROWS[e.layout](e.masks or e.lookup) for e in MENU}
    assert all(cost.drafted > 0 and cost.undrafted > 0 for cost in costs.values())
    expected = [(entry, some) for entry in MENU for _ in range(2) for some in (0, entry.masks or entry.lookup)]
    assert [(entry, drafted) for entry, rows in seen for drafted in {drafted for _, drafted in rows}] == expected
    assert all(past == 20 for _, rows in seen[::2] for past, _ in rows)
    assert {len(rows) for _, rows in seen} == {batch_size}


def test_the_first_step_of_a_lap_is_the_one_without_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    real = calibrate._step

    def step(session: Session) -> float:
        drafted = float(session.live[0].row.drafted)
        real(session)
        return 1 + drafted

    monkeypatch.setattr(calibrate, "_step", step)
    costs = measure(adapted(LLAMA), 1, context=20, seconds=1e9)
    assert {entry: (cost.drafted, cost.undrafted) for entry, cost in costs.items()} == {
        entry: (1.0 + (entry.masks or entry.lookup), 1.0) for entry in MENU
    }


def test_it_measures_up_to_the_end_of_the_context() -> None:
    model = adapted(LLAMA)
    batch, context = rounded(model, 1, model.base.context)
    assert {entry: cost.rows for entry, cost in measure(model, batch, context).items()} == {
        entry: ROWS[entry.layout](entry.masks or entry.lookup) for entry in MENU
    }


def test_the_menu_is_what_the_adapter_has_masks_for(folder: Path, measured: list[tuple[int, int]]) -> None:
    model = with_adapter(LLAMA.model(), masks=3)
    assert max(entry.masks for entry in calibrate.menu_of(model)) == 3
    assert max(entry.masks for entry in planner_for(adapted(LLAMA), 1, 9, masks=2).costs) == 2
    assert planner_for(adapted(LLAMA), 1, 9).costs == COSTS


def test_the_forecast_is_the_planners(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_adapter(LLAMA.model())
    model.acceptance = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
    costs = {entry: Cost(1 + 0.1 * entry.masks, 0.9, 1 + entry.masks) for entry in MENU}
    found = forecast(Curve(4, 128, costs), known_acceptance(model))
    assert [one.entry for one in found] == list(MENU)
    for one in found:
        assert one.times_plain == pytest.approx(1 + 0.1 * one.entry.masks)
        assert one.tokens_per_second == pytest.approx(4 * expected_rate(one.entry, costs[one.entry], model.acceptance))
        assert (one.rows, one.undrafted_seconds) == (1 + one.entry.masks, 0.9)
    assert [one for one in found if one.chosen] == [max(found, key=lambda one: one.tokens_per_second)]
    assert not found[0].chosen
