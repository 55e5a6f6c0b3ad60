"""The verb `advise`: forecasts are the planner's own, on costs given by hand. Seconds are not asserted."""

import json
import re
from collections.abc import Sequence
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

GOOD, POOR = (0.9, 0.8, 0.7, 0.6), (0.05, 0.01, 0.001, 0.0)
KNOWN = {"good": GOOD, "poor": POOR}
ROOT = Path(__file__).parents[3]


def curve(size: int, noise: Sequence[float] = (0.0,) * 8) -> Curve:
    """A machine where every mask makes a step of a batch dearer, and rounds in which steps with masks cost more."""
    rounds = [
        {entry: Cost(1 + 0.1 * size * entry.masks + more * bool(entry.masks), 1.0, 1 + entry.masks) for entry in MENU}
        for more in noise
    ]
    return Curve(size, 128, rounds[0], rounds=tuple(rounds))


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
    assert offer.interval == (offer.speedup, offer.speedup), "every round was the same"


def test_break_even_is_the_batch_size_from_which_on_plain_is_best(advice: Advice) -> None:
    assert advice.break_even("poor", 128) == 1
    assert advice.break_even("good", 128) == 16
    assert advice.sizes("poor", 128, pays=True) == []
    assert 16 not in advice.sizes("good", 128, pays=True) != []
    assert replace(advice, offers=advice.offers[:2]).break_even("good", 128) is None


def test_the_sentence_says_whether_it_pays(advice: Advice) -> None:
    assert advice.sentence.startswith("It should pay in 2 of 6 cases: at best 2.")
    assert re.search(r"\(95 %: 2\.\d+ to 2\.\d+, good, batch 1, quadratic 4\)", advice.sentence)
    poor = replace(advice, offers=tuple(offer for offer in advice.offers if offer.domain == "poor"))
    assert poor.sentence.startswith("It will not pay here")


def test_a_gain_within_the_noise_of_the_rounds_is_none() -> None:
    """1.2 times plain by the costs that were kept, but in some rounds slower than plain, in others faster."""
    noise = [0.0, 2.0, 0.0, 1.5, 0.2, 1.8, 0.1, 2.2]
    [close] = offers([curve(4, noise)], {"good": GOOD})
    assert close.drafting.tokens_per_second / close.plain.tokens_per_second > 1.5
    assert (close.pays, close.best, close.speedup) == (None, close.plain, 1.0)
    low, high = close.interval or (0, 0)
    assert low < 1 < high
    one = Advice((close,), {"good": GOOD}, "as given", TrainingCost(100, 0.5), {})
    assert one.sentence == "Too close to tell: drafts may pay in 1 of 1 cases, and surely in none."
    assert one.sizes("good", 128, pays=None) == [4]
    [sure] = offers([curve(4, [0.1] * 8)], {"good": GOOD})
    both = replace(one, offers=(sure, close))
    assert both.sentence.startswith("It should pay in 1 of 2 cases (too close to tell in 1): at best ")


def test_a_speedup_is_the_median_of_the_ratios_of_the_rounds() -> None:
    [offer] = offers([curve(4, [0.0, 0.1, 0.2, 0.3, 0.4, 0.1, 0.2, 0.3, 5.0])], {"good": GOOD})
    assert len(offer.speedups) == 9
    assert offer.speedup == sorted(offer.speedups)[4] > 1
    best, plain = offer.drafting.entry, offer.plain.entry
    first = curve(4).costs
    assert offer.speedups[0] == expected_rate(best, first[best], GOOD) / expected_rate(plain, first[plain], GOOD)


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
