"""Do two samples of token tuples come from one distribution? A permutation test, and what it can see. Pure.

*Classes.* A joint distribution of several tokens has too many outcomes to count, so it is folded: at each place the
tokens are common (the most frequent ones, which hold half of the two samples together) or rare, and a tuple's class
says which it has at every place. A wrong verifier moves chance towards what the drafter favours, and drafters favour
what is common: hashes or buckets of token ids mix common with rare and lose that, and the most frequent prefixes, as
classes, say little of the later places. Classes come from the two samples together, so that no permutation moves them.

*Statistic.* Pearson's chi-squared of the two rows of class counts. *P-value*: its rank among random divisions of the
same tuples into two samples. As only counts matter, a division is one draw of a hypergeometric table.

*Power.* A shift of total variation d adds at least 4 d^2 / (1/n + 1/m) to the expected statistic, the least where every
class gains or loses the same share of itself; any other shift of the same size between the classes is easier to see.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
DRAWS = 2_000
"""Bootstrap samples for an interval."""
Tokens = NDArray[np.int64]
"""(N, P): P tokens of each of N answers."""
Counts = NDArray[np.int64]
"""(..., C): answers in each of C classes."""

PERMUTATIONS = 99_999
"""Random divisions for a p-value, whose least value is 1 / (PERMUTATIONS + 1)."""


def p_value(left: Tokens, right: Tokens, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """Chance of a difference at least as great as this one if both samples have one distribution."""
    classes = fold(np.concatenate((left, right)))
    totals = np.bincount(classes)
    observed = np.bincount(classes[: len(left)], minlength=len(totals))
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(
        totals, len(left), size=permutations, method="marginals"
    )
    statistics = chi_squared(np.concatenate((observed[None], drawn)), totals)
    # Equal tables may differ by rounding; a permutation as far off as the observed one counts.
    return float((statistics >= statistics[0] * (1 - 1e-9)).mean())


def fold(tokens: Tokens) -> NDArray[np.int64]:
    """(N,) class of each tuple, 0 to 2^P - 1: one bit a place, 1 for a token that is common there."""
    classes = np.zeros(len(tokens), dtype=np.int64)
    for place in tokens.T:
        _, which, counts = np.unique(place, return_inverse=True, return_counts=True)
        by_frequency = np.argsort(-counts, kind="stable")
        more_frequent = np.cumsum(counts[by_frequency]) - counts[by_frequency]
        common = np.empty(len(counts), dtype=np.int64)
        common[by_frequency] = more_frequent < len(place) / 2
        classes = 2 * classes + common[which]
    return classes


def chi_squared(counts: Counts, totals: Counts) -> NDArray[np.float64]:
    """(...,) Pearson's statistic of one sample's `counts` (..., C) and the other's, `totals` (C,) less them."""
    known = totals > 0
    counts, totals = counts[..., known], totals[known]
    share: NDArray[np.float64] = counts.sum(axis=-1, keepdims=True) / totals.sum()
    statistic: NDArray[np.float64] = ((counts - share * totals) ** 2 / (share * (1 - share) * totals)).sum(axis=-1)
    return statistic


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number (Holm 1979): below `a`, all of them together err with chance `a`."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


@dataclass(frozen=True, slots=True)
class Power:
    """What a test of two samples is to find, and how surely."""

    classes: int
    ratio: float
    """Size of the larger sample over that of the smaller."""
    level: float
    """p-value that counts as found."""
    chance: float = 0.8
    """Of finding it."""

    def samples(self, shift: float) -> int:
        """Least size of the smaller sample that finds every shift between the classes of this total variation."""
        return math.ceil(self._needed / shift**2)

    def shift(self, samples: int) -> float:
        """Total variation that a smaller sample of this size finds."""
        return math.sqrt(self._needed / samples)

    @property
    def _needed(self) -> float:
        """Samples times shift squared, by the bound at the top of this file."""
        return _noncentrality(self.classes - 1, self.level, self.chance) * (1 + 1 / self.ratio) / 4


def _noncentrality(freedom: int, level: float, power: float) -> float:
    """How far off chi-squared must be to pass its quantile 1 - `level` with chance `power`."""
    wanted = _quantile(freedom, 0.0, 1 - level)
    low, high = 0.0, 10.0 * wanted
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _quantile(freedom, middle, 1 - power) > wanted else (middle, high)
    return high


def _quantile(freedom: int, noncentrality: float, share: float) -> float:
    """Of noncentral chi-squared: a scaled central one (Patnaik 1949), its cube root normal (Wilson, Hilferty 1931)."""
    mean, spread = freedom + noncentrality, freedom + 2 * noncentrality
    step = 2 * spread / (9 * mean**2)
    return float(mean * (1 - step + NormalDist().inv_cdf(share) * math.sqrt(step)) ** 3)


def at_most(found: int, of: int, confidence: float = CONFIDENCE) -> float:
    """The largest share that finding `found` in `of` leaves possible, one-sided and exact (Clopper, Pearson 1934)."""
    if found >= of:
        return 1.0
    low, high = found / of, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _no_more(found, of, middle) > 1 - confidence else (low, middle)
    return high


def ratio_interval(parts: Sequence[float], wholes: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """Bootstrap interval (Efron 1979, percentiles) of sum(parts) / sum(wholes), where pairs are drawn anew.

    Too narrow for a handful of pairs; None for one pair, which says nothing of how another would be.
    """
    if len(parts) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(len(parts), size=(DRAWS, len(parts)))
    ratios = np.asarray(parts, float)[drawn].sum(axis=1) / np.asarray(wholes, float)[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Where the median lies of what `values` were drawn from: the least and most ranks that hold it with 95 % chance.

    By the sign test, whatever the distribution. None for fewer than six values, which cannot say it so surely.

    >>> median_interval([1, 2, 3, 4, 5, 6]), median_interval([1, 2, 3, 4, 5])
    ((1, 6), None)
    """
    ordered, count = sorted(values), len(values)
    outside = [2 * sum(math.comb(count, below) for below in range(rank + 1)) / 2**count for rank in range(count // 2)]
    rank = sum(chance <= 1 - CONFIDENCE for chance in outside)
    return (ordered[rank - 1], ordered[count - rank]) if rank else None


def _no_more(found: int, of: int, share: float) -> float:
    """Chance of `found` or fewer in `of`, each with chance `share`, strictly between 0 and 1."""
    kept, lost = math.log(share), math.log1p(-share)
    return math.fsum(
        math.exp(_log_choose(of, count) + count * kept + (of - count) * lost) for count in range(found + 1)
    )


def _log_choose(of: int, count: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)
