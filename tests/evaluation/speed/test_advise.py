"""The verb `advise`: forecasts are the planner's own, on costs given by hand. Seconds are not asserted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from foresay.decoding.planning.planner import MENU, Cost, expected_rate
from foresay.decoding.step_costs import Curve
from foresay.evaluation.config import AdviseConfig
from foresay.evaluation.speed.advise import ASSUMED, Advice, TrainingCost, acceptance_of, advise, assumed, offers
from foresay.foundation.errors import ConfigError, DataError
from foresay.model import MultiTokenModel
from foresay.models.config import MTPConfig
from foresay.training.config import TrainConfig

GOOD, POOR = (0.9, 0.8, 0.7, 0.6), (0.1, 0.01, 0.001, 0.0)
KNOWN = {"good": GOOD, "poor": POOR}
ROOT = Path(__file__).parents[3]


def curve(size: int) -> Curve:
    """A machine where every mask makes a step of a batch dearer."""
    return Curve(size, 128, {entry: Cost(1 + 0.1 * size * entry.masks, 1.0, 1 + entry.masks) for entry in MENU})


@pytest.fixture
def advice() -> Advice:
    return Advice(offers([curve(1), curve(4), curve(16)], KNOWN), KNOWN, "as given", TrainingCost(100, 0.5), {})


def test_an_offer_is_the_planner_s_forecast() -> None:
    [offer] = offers([curve(4)], {"good": GOOD})
    for found in offer.entries:
        cost = curve(4).costs[found.entry]
        assert found.tokens_per_second == 4 * expected_rate(found.entry, cost, GOOD)
    assert offer.plain.tokens_per_second == 4.0
    assert offer.speedup == max(found.tokens_per_second for found in offer.entries) / 4.0


def test_break_even_is_the_batch_size_from_which_on_plain_is_best(advice: Advice) -> None:
    assert advice.break_even("poor", 128) == 1
    assert advice.break_even("good", 128) == 16
    assert advice.pays_at("poor", 128) == []
    assert 16 not in advice.pays_at("good", 128) != []
    assert replace(advice, offers=advice.offers[:2]).break_even("good", 128) is None


def test_the_sentence_says_whether_it_pays(advice: Advice) -> None:
    assert advice.sentence.startswith("It will pay here: expected are up to 2.")
    assert "(good, batch 1, quadratic 4)" in advice.sentence
    poor = replace(advice, offers=tuple(offer for offer in advice.offers if offer.domain == "poor"))
    assert poor.sentence.startswith("It will not pay here")


def test_what_is_assumed_is_what_the_committed_results_say() -> None:
    results = ROOT / "benchmarks" / "results" / json.loads(ASSUMED.read_text())["made_from"]
    known, source = assumed(AdviseConfig())
    assert known == acceptance_of(json.loads(results.read_text()))
    assert set(known) == {"math", "code", "stories", "chat"}
    assert source == "of the embedded adapter on its own domains"


def test_acceptance_is_read_from_results_of_eval(tmp_path: Path) -> None:
    rows = [
        {"domain": "math", "masks": masks, "acceptance": [{"unconditional": 0.5 / masks}] * masks} for masks in (2, 1)
    ]
    path = tmp_path / "eval.json"
    path.write_text(json.dumps({"rows": rows, "domains": rows}))
    assert assumed(AdviseConfig(results=path)) == ({"math": (0.25, 0.25)}, "of eval.json")
    assert assumed(AdviseConfig(acceptance=GOOD)) == ({"given": GOOD}, "as given")


@pytest.mark.parametrize("content", ["", "[]", '{"results": []}', '{"curves": []}', '{"results": [{"a": 1}]}'])
def test_results_without_acceptance_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"some\.json holds no .*give JSON of foresay bench or eval"):
        assumed(AdviseConfig(results=path))


@pytest.mark.parametrize("shares", [(1.1,), (0.5, 0.6), (-0.1,)])
def test_acceptance_that_cannot_be_is_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="acceptance is"):
        AdviseConfig(acceptance=shares)


def test_it_runs_on_a_base_before_any_training() -> None:
    model = MultiTokenModel.from_base("nano", MTPConfig(num_masks=2, rank=2))
    train = TrainConfig(steps=50, sequences=2, anchors=2, max_length=32)
    found = advise(model, AdviseConfig(batch_sizes=(1, 2), acceptance=(0.5, 0.2), seconds=60), train)
    assert [(offer.domain, offer.batch_size) for offer in found.offers] == [("given", 1), ("given", 2)]
    assert [entry.label for entry in found.offers[0].entries] == ["plain", "linear 2", "quadratic 1", "quadratic 2"]
    assert found.training.steps == 50
    assert found.training.seconds == 50 * found.training.seconds_per_step > 0
    assert found.provenance["settings"]["mtp"]["num_masks"] == 2
