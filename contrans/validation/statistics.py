"""Intervals and tests for shares of items, and for differences between arms on the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, copysign, inf, sqrt
from statistics import NormalDist
from typing import TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike

from contrans.errors import FitError
from contrans.validation.curves import area_under_curve, interpolate_at, sufficient_dose
from contrans.validation.resampling import bca_bootstrap, cluster_bootstrap

__all__ = [
    "Estimate",
    "area_under_curve",
    "bca_bootstrap",
    "cluster_bootstrap",
    "half_width",
    "holm",
    "interpolate_at",
    "mcnemar",
    "minimal_detectable",
    "power_note",
    "random_p_value",
    "sufficient_dose",
    "wilson",
]

MIN_RANDOM_DRAWS = 99
"""Random directions below which no p-value is given: 99 are the fewest that can show p = .01."""

Key = TypeVar("Key")


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
    # rounding must not put an end beside 0 or 1, where the share itself is
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Estimate(p, low, high, n)


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


@overload
def holm(p_values: Mapping[Key, float]) -> dict[Key, float]: ...
@overload
def holm(p_values: Sequence[float]) -> list[float]: ...
def holm(p_values: Mapping[Key, float] | Sequence[float]) -> dict[Key, float] | list[float]:
    """P-values of several concepts adjusted so that all may be read at one level (Holm 1979).

    The k-th smallest of m becomes max over j ≤ k of min(1, (m − j + 1) p₍ⱼ₎): the chance of any false claim among
    all that are made stays below the level, whatever ties the concepts to each other.

    Args:
        p_values: one per concept, as a mapping or a sequence.

    Returns:
        The adjusted p-values, under the same keys or in the same order.

    Raises:
        FitError: a p-value is not between 0 and 1.
    """
    if isinstance(p_values, Mapping):
        return dict(zip(p_values, holm(list(p_values.values())), strict=True))
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise FitError(f"A p-value lies between 0 and 1, but these are {p.tolist()}; leave out what was not tested.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]).clip(max=1.0)
    return adjusted.tolist()


def random_p_value(observed: float, draws: ArrayLike, *, fewest: int = MIN_RANDOM_DRAWS) -> float:
    """One-sided p-value that a direction drawn at random does as much: (1 + #{draws ≥ observed}) / (R + 1).

    It counts the observed direction among the draws, so it is never 0 and is exact for any R (Phipson & Smyth 2010).

    Args:
        observed: effect of the direction that is judged.
        draws: effect of each random direction [R].
        fewest: draws that there must be.

    Raises:
        FitError: there are fewer draws, or one of the effects is not a number.
    """
    effects = np.asarray(draws, dtype=float).ravel()
    if len(effects) < fewest:
        raise FitError(
            f"{len(effects)} random directions cannot show a p-value below {1 / (len(effects) + 1):.3f}; draw at least "
            f"{fewest}."
        )
    if not np.isfinite([observed, *effects]).all():
        raise FitError("An effect is not a number, so no share of the random directions can be counted; leave it out.")
    return float((1 + (effects >= observed).sum()) / (len(effects) + 1))


def half_width(n: int, *, p: float = 0.5, discordant: float | None = None, level: float = 0.95) -> float:
    """Half of the normal interval at n items: what a share, or a paired difference of shares, is uncertain by.

    Args:
        n: items.
        p: the share; .5 is the widest, also for any score between 0 and 1. half = z √(p (1 − p) / n).
        discordant: for the difference between two arms on the same items, the share of items on which they disagree;
            then half = z √(discordant / n), its width where the arms win and lose equally many.
        level: of the interval.

    Raises:
        FitError: there are no items, or a share is not between 0 and 1.
    """
    return NormalDist().inv_cdf((1 + level) / 2) * sqrt(_variance(n, p, discordant) / n)


def minimal_detectable(
    n: int, *, p: float = 0.5, discordant: float | None = None, level: float = 0.95, power: float = 0.8
) -> float:
    """The smallest difference that a two-sided test on n items finds with the given power.

    Against a fixed share δ = (z_α + z_β) √(p (1 − p) / n). Between two arms on the same items δ solves
    δ √n = z_α √d + z_β √(d − δ²), with d the share of items on which they disagree (Connor 1987, for McNemar's test).

    Args:
        n: items.
        p: the fixed share.
        discordant: d; None is the test against a fixed share.
        level: 1 − the test's size.
        power: chance to find the difference.

    Returns:
        The difference; infinite where even all disagreements the same way would not be found.

    Raises:
        FitError: there are no items, or a share is not between 0 and 1.
    """
    variance = _variance(n, p, discordant)
    alpha, beta = NormalDist().inv_cdf((1 + level) / 2), NormalDist().inv_cdf(power)
    if discordant is None:
        return (alpha + beta) * sqrt(variance / n)
    a, b = alpha * sqrt(discordant), beta * beta
    # the quadratic in δ after squaring, of whose roots one has the sign of z_β
    root = sqrt(max(0.0, a * a * n - (n + b) * (a * a - b * discordant)))
    found = (a * sqrt(n) + copysign(root, beta)) / (n + b)
    return found if found <= discordant else inf


def power_note(n: int, p: float = 0.5, *, discordant: float | None = None) -> str:
    """What n items can see, in words: "n=200 sees differences of ±7 points".

    Args:
        n: items.
        p: the share that the points are about; .5, the default, is the widest.
        discordant: share of items on which two arms disagree; if given, the note goes on with the half width of the
            paired difference between them.

    Returns:
        95 % half widths (see `half_width`) in percentage points, without a full stop.

    Raises:
        FitError: there are no items, or a share is not between 0 and 1.
    """
    note = f"n={n} sees differences of ±{_points(half_width(n, p=p))} points"
    if discordant is None:
        return note
    paired = _points(half_width(n, discordant=discordant))
    return f"{note}, ±{paired} between two arms that disagree on {100 * discordant:.0f} % of the items"


def _points(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.01 else f"{100 * share:.1f}"


def _variance(n: int, p: float, discordant: float | None) -> float:
    if n <= 0:
        raise FitError("No items see no difference; give items.")
    if not 0 <= p <= 1 or (discordant is not None and not 0 <= discordant <= 1):
        raise FitError(
            f"A share lies between 0 and 1, not at {p if discordant is None else discordant:g}; give a share."
        )
    return p * (1 - p) if discordant is None else discordant
