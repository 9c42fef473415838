"""Intervals by resampling items: the percentile bootstrap, and BCa, which corrects it for bias and skew."""

import logging
from collections.abc import Callable
from math import isfinite
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

log = logging.getLogger(__name__)

Statistic = Callable[[np.ndarray], np.ndarray]
"""Maps weights of items, float64 [draws, n_items] with rows that sum to n_items, to values [draws]."""

_JACKKNIFE_ROWS = 512  # rows of weights at a time, so that [n_items, n_items] never stands in memory


class Interval(NamedTuple):
    """An interval, and why it is not what was asked for.

    Attributes:
        low: lower end.
        high: upper end.
        fallback: why BCa is undefined and the percentile interval stands here instead; empty for BCa.
    """

    low: float
    high: float
    fallback: str = ""


def cluster_bootstrap(
    statistic: Statistic,
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
    return _percentile(_resampled(statistic, n_items, draws, seed), level)


def crossed_bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    n_items: int,
    n_directions: int,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval under resampling of items and of the directions that were drawn, independently of each other.

    For a control of many draws, whose effect is to hold for directions that were not drawn too. Errs on the side of a
    wider interval (the pigeonhole bootstrap, Owen 2007, arXiv 0712.1111). Items are resampled as by `cluster_bootstrap`
    with the same seed.

    Args:
        statistic: maps weights of items, float64 [draws, n_items], and of directions, float64 [draws, n_directions],
            whose rows sum to their numbers, to values [draws].
        n_items: items to resample.
        n_directions: directions to resample.
        draws: resamples.
        seed: of the resampling.
        level: of the interval.
    """
    rng = np.random.default_rng((seed, n_directions))
    directions = rng.multinomial(n_directions, np.full(n_directions, 1 / n_directions), size=draws).astype(float)
    return _percentile(_resampled(lambda items: statistic(items, directions), n_items, draws, seed), level)


def bca_bootstrap(
    statistic: Statistic,
    n_items: int,
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bias-corrected and accelerated interval of a statistic under resampling of items (Efron 1987).

    Resamples are those of `cluster_bootstrap` with the same seed, so the same pairing holds. Where BCa is undefined
    the percentile interval is returned and the log says why.

    Args:
        statistic: maps weights of items, float64 [draws, n_items] with rows that sum to n_items, to values [draws].
        n_items: items to resample.
        draws: resamples.
        seed: of the resampling.
        level: of the interval.

    Returns:
        Lower and upper end; draws whose statistic is not finite are left out.
    """
    values = _resampled(statistic, n_items, draws, seed)
    point = float(statistic(np.ones((1, n_items)))[0])
    found = bca_interval(values, point, jackknife(statistic, n_items), level=level)
    if found.fallback:
        log.warning("A percentile interval stands in for BCa: %s.", found.fallback)
    return found.low, found.high


def bca_interval(values: np.ndarray, point: float, left_out: np.ndarray, *, level: float = 0.95) -> Interval:
    """BCa interval from a bootstrap distribution (Efron & Tibshirani 1993, eqs. 14.10, 14.14 and 14.15).

    The ends are the quantiles Φ(z₀ + (z₀ ± z) / (1 − a (z₀ ± z))) of the draws, with z₀ = Φ⁻¹ of the share of draws
    below the estimate (ties count half) and a = Σ u³ / (6 (Σ u²)^{3/2}) over the jackknife's deviations u.

    Args:
        values: the statistic on each resample [draws]; values that are not finite are left out.
        point: the statistic on the items themselves.
        left_out: the statistic with one item left out, for each item [n_items].
        level: of the interval.

    Returns:
        The interval; draws that are all alike give that one value at both ends.
    """
    values = values[np.isfinite(values)]
    low, high = _percentile(values, level)
    if len(values) == 0 or low == high == values.min() == values.max():
        return Interval(low, high)
    if not isfinite(point):
        return Interval(low, high, "the statistic has no value on the items themselves")
    if not np.isfinite(left_out).all():
        return Interval(low, high, "the statistic has no value once some single item is left out")
    below = float(((values < point).mean() + (values <= point).mean()) / 2)
    if not 0 < below < 1:
        return Interval(low, high, "every draw lies on one side of the estimate")
    u = left_out.mean() - left_out
    spread = float((u**2).sum())
    # equal jackknife values have no skew to correct
    acceleration = float((u**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    normal = NormalDist()
    bias = normal.inv_cdf(below)
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        z = bias + normal.inv_cdf(share)
        if acceleration * z >= 1:
            return Interval(low, high, "the items are too skewed for an acceleration")
        ends.append(normal.cdf(bias + z / (1 - acceleration * z)))
    low, high = np.quantile(values, ends).tolist()
    return Interval(low, high)


def jackknife(statistic: Statistic, n_items: int) -> np.ndarray:
    """The statistic with one item left out, for each item [n_items]; the others weigh n / (n − 1) each.

    Args:
        statistic: as for `bca_bootstrap`.
        n_items: items.
    """
    if n_items < 2:
        return np.full(n_items, np.nan)
    parts = []
    for start in range(0, n_items, _JACKKNIFE_ROWS):
        rows = np.arange(start, min(start + _JACKKNIFE_ROWS, n_items))
        weights = np.full((len(rows), n_items), n_items / (n_items - 1))
        weights[np.arange(len(rows)), rows] = 0.0
        parts.append(statistic(weights))
    return np.concatenate(parts)


def _resampled(statistic: Statistic, n_items: int, draws: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_items, np.full(n_items, 1 / n_items), size=draws).astype(float)
    return statistic(weights)


def _percentile(values: np.ndarray, level: float) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float("-inf"), float("inf")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
