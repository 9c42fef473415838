"""Intervals and tests for shares of items, and for differences between arms on the same items."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist

import numpy as np

from contrans.errors import FitError


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: the point estimate.
        low: lower end of the 95 % interval.
        high: upper end.
        n: items behind it.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def wilson(successes: int, n: int, *, level: float = 0.95) -> Estimate:
    """A share with Wilson's score interval (Wilson 1927), which holds at 0 and 1 too.

    Raises:
        FitError: there are no items.
    """
    if n <= 0:
        raise FitError("A share of no items has no value; give items.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half), n)


def mcnemar(before: np.ndarray, after: np.ndarray) -> float:
    """Two-sided exact p-value that two arms differ on the same items (McNemar 1947, exact binomial).

    Args:
        before: bool [n], right or wrong under one arm.
        after: bool [n], the same items under the other.
    """
    won = int((after & ~before).sum())
    lost = int((before & ~after).sum())
    n = won + lost
    if n == 0:
        return 1.0
    tail = sum(comb(n, k) for k in range(min(won, lost) + 1)) / 2**n
    return min(1.0, 2 * tail)


def cluster_bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    n_items: int,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a statistic under resampling of items (Efron 1979).

    The same resampled items serve every arm and every concept inside `statistic`, so that differences and ratios
    of arms are paired, and an item that is a negative of several concepts counts as one.

    Args:
        statistic: maps weights of items, float64 [draws, n_items] with rows that sum to n_items, to values [draws].
        n_items: items to resample.
        draws: resamples.
        seed: of the resampling.
        level: of the interval.

    Returns:
        Lower and upper end; draws whose statistic is not finite are left out.
    """
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_items, np.full(n_items, 1 / n_items), size=draws).astype(float)
    values = statistic(weights)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("-inf"), float("inf")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def sufficient_dose(doses: Sequence[float], accuracy: Sequence[float], base: float, *, share: float = 0.95) -> float:
    """The smallest dose that has a given share of the gain of the best one.

    Beyond it, more of the model is changed for little more effect; the best dose itself is often just the largest.

    Args:
        doses: candidates.
        accuracy: dev accuracy at each.
        base: dev accuracy of the unsteered model.
        share: of the best dose's gain over `base`.
    """
    wanted = base + share * (max(accuracy) - base)
    return min(d for d, a in zip(doses, accuracy, strict=True) if a >= wanted - 1e-12)
