"""How sure is a figure? Exact bounds for shares, bootstrap intervals for ratios of sums. Pure."""

import math
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
DRAWS = 2_000
"""Bootstrap samples behind an interval."""


def at_most(found: int, of: int, confidence: float = CONFIDENCE) -> float:
    """The largest share that finding `found` in `of` leaves possible, one-sided and exact (Clopper, Pearson 1934)."""
    if found >= of:
        return 1.0
    low, high = found / of, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _no_more(found, of, middle) > 1 - confidence else (low, middle)
    return high


def ratio_interval(parts: Sequence[float], wholes: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval (Efron 1979, percentiles) of sum(parts) / sum(wholes), where pairs are drawn anew.

    Too narrow for a handful of pairs, and one pair, drawn over and over, has none at all: its interval has no width.
    """
    drawn = np.random.default_rng(seed).integers(len(parts), size=(DRAWS, len(parts)))
    ratios = np.asarray(parts, float)[drawn].sum(axis=1) / np.asarray(wholes, float)[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _no_more(found: int, of: int, share: float) -> float:
    """Chance of `found` or fewer in `of`, each with chance `share`, strictly between 0 and 1."""
    kept, lost = math.log(share), math.log1p(-share)
    return math.fsum(
        math.exp(_log_choose(of, count) + count * kept + (of - count) * lost) for count in range(found + 1)
    )


def _log_choose(of: int, count: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)
