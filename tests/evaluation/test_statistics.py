"""The permutation test: sound under no difference, able to see one, right where all divisions can be counted."""

from itertools import combinations

import numpy as np
import pytest

from foresay.evaluation.statistics import Power, Tokens, chi_squared, fold, holm, p_value

CHANCES = 1 / np.arange(1, 301)
CHANCES /= CHANCES.sum()
"""Of 300 tokens, a few common and many rare, as in text."""


def draw(generator: np.random.Generator, answers: int, chances: np.ndarray = CHANCES, places: int = 5) -> Tokens:
    return generator.choice(len(chances), size=(answers, places), p=chances)


def test_a_class_has_a_bit_for_each_place() -> None:
    # 7 holds half of the first place, 1 and 2 of the second, most frequent first.
    tokens = np.array([[7, 1], [7, 1], [7, 2], [3, 3], [4, 4], [7, 2]])
    assert fold(tokens).tolist() == [3, 3, 3, 0, 0, 3]
    assert fold(np.array([[7, 1], [7, 1], [7, 1], [3, 9]])).tolist() == [3, 3, 3, 0]
    assert fold(np.array([[5], [5]])).tolist() == [1, 1]


def test_classes_belong_to_the_two_samples_together() -> None:
    tokens = draw(np.random.default_rng(0), 200)
    order = np.random.default_rng(1).permutation(200)
    assert (fold(tokens)[order] == fold(tokens[order])).all()
    assert len(set(fold(tokens).tolist())) == 32


def test_chi_squared_of_two_by_two() -> None:
    # n (ad - bc)^2 over the product of the margins.
    left, right = np.array([12, 5]), np.array([9, 14])
    expected = 40 * (12 * 14 - 5 * 9) ** 2 / (17 * 23 * 21 * 19)
    assert chi_squared(left, left + right) == pytest.approx(expected)
    assert chi_squared(right, left + right) == pytest.approx(expected)
    assert chi_squared(np.array([12, 0, 5]), np.array([21, 0, 19])) == pytest.approx(expected)


def test_p_value_counts_every_division() -> None:
    tokens = np.array([[1, 1], [1, 1], [1, 2], [2, 3], [1, 2], [2, 3], [2, 4], [1, 4], [2, 5], [2, 3]])
    classes, first = fold(tokens), 4
    totals = np.bincount(classes)

    def statistic(rows: tuple[int, ...]) -> float:
        return float(chi_squared(np.bincount(classes[list(rows)], minlength=len(totals)), totals))

    divisions = [statistic(rows) for rows in combinations(range(len(tokens)), first)]
    exact = np.mean(np.array(divisions) >= statistic((0, 1, 2, 3)) - 1e-9)
    assert 0.05 < exact < 0.95
    assert p_value(tokens[:first], tokens[first:]) == pytest.approx(exact, abs=0.01)


def test_p_values_are_uniform_where_nothing_differs() -> None:
    generator = np.random.default_rng(0)
    values = [p_value(draw(generator, 60), draw(generator, 180), permutations=199, seed=seed) for seed in range(1000)]
    for level in (0.01, 0.05, 0.25, 0.5, 0.9):
        assert np.mean(np.array(values) <= level) == pytest.approx(level, abs=3.5 * (level * (1 - level) / 1000) ** 0.5)


def test_a_shift_is_found_as_often_as_promised() -> None:
    power = Power(classes=32, ratio=3, level=0.01)
    shift = power.shift(150)
    assert power.samples(shift) in (150, 151)
    generator, found = np.random.default_rng(0), []
    # Classes without a fold: a token a class, and the shift that is hardest to see.
    level = np.full(32, 1 / 32)
    shifted = level * (1 + 2 * shift * np.tile([1, -1], 16))
    assert np.abs(shifted - level).sum() / 2 == pytest.approx(shift)
    for seed in range(300):
        left, right = generator.multinomial(150, shifted), generator.multinomial(450, level)
        drawn = np.random.default_rng(seed).multivariate_hypergeometric(left + right, 150, 999, method="marginals")
        found.append(np.mean(chi_squared(drawn, left + right) >= chi_squared(left, left + right)) < 0.01)
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


def test_power_agrees_with_drawn_chi_squared() -> None:
    generator = np.random.default_rng(0)
    for classes, level, chance in ((8, 0.05, 0.8), (16, 0.01, 0.9), (32, 0.001, 0.8)):
        power = Power(classes, 1, level, chance)
        passed = np.quantile(generator.chisquare(classes - 1, 10**6), 1 - level)
        # n answers on both sides, by the bound at the top of the module.
        noncentrality = 4 * power.shift(1000) ** 2 * 1000 / 2
        drawn = generator.noncentral_chisquare(classes - 1, noncentrality, 10**6)
        assert np.mean(drawn > passed) == pytest.approx(chance, abs=0.01)


def test_a_greater_sample_finds_a_smaller_shift() -> None:
    power = Power(classes=32, ratio=3, level=0.01)
    assert power.samples(0.1) == pytest.approx(4 * power.samples(0.2), rel=0.01)
    assert power.samples(0.1) > Power(classes=32, ratio=9, level=0.01).samples(0.1)
    assert power.samples(0.1) < Power(classes=32, ratio=3, level=0.001).samples(0.1)


def test_common_and_rare_see_what_a_hash_loses() -> None:
    """A third of every token's chance goes to the twenty most frequent tokens."""
    generator, shifted = np.random.default_rng(0), CHANCES * 2 / 3
    shifted[:20] += CHANCES[:20] / CHANCES[:20].sum() / 3
    left, right = draw(generator, 400, shifted), draw(generator, 1200)
    names = np.random.default_rng(1).permutation(300)
    assert max(p_value(left, right), p_value(names[left], names[right])) < 1e-4
    # Two buckets a place and as many classes, by the token's name.
    assert p_value(names[left] % 2, names[right] % 2) > 1e-3


def test_the_least_p_value_is_one_over_the_divisions() -> None:
    left, right = np.zeros((50, 5), dtype=np.int64), np.ones((60, 5), dtype=np.int64)
    assert p_value(left, right, permutations=9999) == pytest.approx(1e-4)
    assert p_value(left, left, permutations=99) == 1


def test_holm() -> None:
    # Times 4, 3, 2, 1 in ascending order, never below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9, 0.7]) == [1, 1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
