"""A server whose layout is planned: it answers before anything is measured, and says what it chooses."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")

from foresay.decoding import step_costs
from foresay.decoding.planners import CostBook, Planners
from foresay.decoding.planning.planner import Cost
from foresay.model import MultiTokenModel
from foresay.models.drafting import DraftingModel
from tests.support.served import DECODE, eventually, served

ASKED = {"model": "nano", "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 12}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MultiTokenModel:
    monkeypatch.setenv("FORESAY_CACHE", str(tmp_path))
    return MultiTokenModel.from_pretrained("nano")


def test_it_answers_before_it_measures_and_measures_when_nobody_asks(
    model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [True]
    turn = CostBook.turn

    def waits(self: CostBook, core: DraftingModel) -> bool:
        return bool(self.wanted) if held else turn(self, core)

    monkeypatch.setattr(CostBook, "turn", waits)
    monkeypatch.setattr(step_costs, "lap", lambda *_: Cost(1.0, 1.0, 1))
    with served(model, replace(DECODE, layout="planned")) as server:
        assert server.http().get("/health").status_code == 200
        assert server.client.chat.completions.create(**ASKED).choices
        before = server.counters()
        assert before["foresay:steps_total/plain"] > 1
        assert before["foresay:costs_wanted"] > 0 == before["foresay:costs_known"]
        held.clear()
        assert eventually(lambda: server.counters()["foresay:costs_wanted"] == 0)
        assert server.counters()["foresay:costs_known"] > 2
        assert server.client.chat.completions.create(**ASKED).choices
        after = server.counters()
        assert {name for name in after if name.startswith("foresay:steps_total/")} > {"foresay:steps_total/plain"}
        assert 0 < after["foresay:expected_acceptance/0"] < 1


def test_a_measurement_that_fails_stops_no_answer(
    model: MultiTokenModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Planners, "measure", lambda self: 1 / 0)
    with served(model, replace(DECODE, layout="planned")) as server:
        assert eventually(lambda: "could not be measured" in caplog.text)
        monkeypatch.setattr(Planners, "between_steps", lambda *_: None)
        assert server.client.chat.completions.create(**ASKED).choices
