"""Bounds and intervals: against closed forms, and against the truth they promise to hold."""

import numpy as np
import pytest

from foresay.evaluation.statistics import at_most, median_interval, ratio_interval


@pytest.mark.parametrize("of", [1, 10, 500, 100_000])
def test_nothing_found_has_a_closed_form(of: int) -> None:
    assert at_most(0, of) == pytest.approx(1 - 0.05 ** (1 / of), rel=1e-9)


@pytest.mark.parametrize(
    ("found", "of", "bound"), [(1, 10, 0.3941633), (5, 100, 0.1022534), (50, 100, 0.5863783), (3, 2000, 0.0038722)]
)
def test_known_bounds(found: int, of: int, bound: float) -> None:
    # scipy.stats.beta.ppf(0.95, found + 1, of - found)
    assert at_most(found, of) == pytest.approx(bound, abs=1e-7)


def test_all_found_excludes_nothing() -> None:
    assert at_most(7, 7) == 1.0
    assert at_most(0, 0) == 1.0


def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says() -> None:
    random, covered = np.random.default_rng(0), 0
    for seed in range(200):
        steps = random.integers(10, 60, size=60)
        tokens = random.binomial(3 * steps, 0.5)
        low, high = ratio_interval(tokens.tolist(), steps.tolist(), seed)
        covered += low <= 1.5 <= high
    assert 180 <= covered <= 200


def test_one_pair_leaves_no_room() -> None:
    assert ratio_interval([6], [4]) is None, "one prompt says nothing of another"


def test_the_interval_of_a_median_holds_it_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(1).exponential(size=(2_000, 12))
    held = [low <= np.log(2) <= high for low, high in filter(None, map(median_interval, drawn))]
    assert len(held) == 2_000
    assert 0.95 <= np.mean(held) <= 0.98, "ranks are whole: 96.1 % for twelve values"
    assert median_interval([1.0] * 5) is None
