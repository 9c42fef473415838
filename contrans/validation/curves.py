"""What a curve of effect against dose or against KL says: the dose to take, its area, its height at an equal price."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from contrans.errors import FitError

_ROUNDING = 1e-3  # nats; a KL from half-precision log-probabilities may come out this far below zero


def sufficient_dose(doses: Sequence[float], accuracy: Sequence[float], base: float, *, share: float = 0.95) -> float:
    """The smallest dose that has a given share of the gain of the best one.

    Beyond it, more of the model is changed for little more effect; the best dose itself is often just the largest.

    Args:
        doses: candidates.
        accuracy: dev accuracy at each.
        base: dev accuracy of the unsteered model.
        share: of the best dose's gain over `base`.
    """
    best = max(accuracy)
    # where every dose does harm, the one that does least
    wanted = best - (1 - share) * max(best - base, 0.0)
    return min(d for d, a in zip(doses, accuracy, strict=True) if a >= wanted - 1e-12)


def area_under_curve(x: ArrayLike, y: ArrayLike, x_max: float, *, base: ArrayLike = 0.0) -> np.ndarray:
    """Area under an effect-against-KL curve from (0, base) to `x_max`, by the trapezoid rule.

    Divided by `x_max` it is the mean effect over all prices up to `x_max`. Points may come in any order; between them
    the curve is a straight line, also where `x_max` cuts one.

    Args:
        x: KL of each point [points], in nats per token.
        y: effect at each [points], or [draws, points] for a bootstrap.
        x_max: where to stop.
        base: effect of the unsteered model, where the curve starts; a number, or [draws].

    Returns:
        The area [], or [draws]; NaN where an effect is.

    Raises:
        FitError: there are no points, a KL is negative or not a number, or the curve ends before `x_max`.
    """
    at, heights = _curve(x, y, base, x_max)
    inside = at < x_max
    end = _height(at, heights, x_max)
    xs = np.append(at[inside], x_max)
    ys = np.concatenate([heights[..., inside], end[..., None]], axis=-1)
    return np.trapezoid(ys, xs, axis=-1)


def interpolate_at(x: ArrayLike, y: ArrayLike, budget: float, *, base: ArrayLike = 0.0) -> np.ndarray:
    """Effect at a given KL, so that arms are compared at an equal price.

    Straight lines between the points from (0, base) on: they never overshoot, so the value lies between its two
    neighbours'. Points of the same KL count as their mean.

    Args:
        x: KL of each point [points], in nats per token.
        y: effect at each [points], or [draws, points] for a bootstrap.
        budget: the KL.
        base: effect of the unsteered model, where the curve starts; a number, or [draws].

    Returns:
        The effect [], or [draws]; NaN where one on the curve is.

    Raises:
        FitError: there are no points, a KL is negative or not a number, or the curve ends before `budget`.
    """
    return _height(*_curve(x, y, base, budget), budget)


def _height(at: np.ndarray, heights: np.ndarray, budget: float) -> np.ndarray:
    right = int(np.searchsorted(at, budget))
    if at[right] == budget:
        return heights[..., right]
    left = right - 1
    share = (budget - at[left]) / (at[right] - at[left])
    return (1 - share) * heights[..., left] + share * heights[..., right]


def _curve(x: ArrayLike, y: ArrayLike, base: ArrayLike, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """The curve from (0, base) on, by ascending x without repeats: x [points], y [..., points]."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.ndim != 1 or len(x) == 0 or y.shape[-1:] != x.shape:
        raise FitError(f"A curve needs one effect per KL; there are {y.shape} effects for {x.shape} KLs.")
    if not np.isfinite(x).all() or (x < -_ROUNDING).any():
        raise FitError("A KL of the curve is negative or not a number; leave that dose out.")
    if not 0 < reach <= x.max():
        raise FitError(
            f"The curve goes from KL 0 to {x.max():g}, so it says nothing at {reach:g}; measure larger doses or name a "
            f"KL within reach."
        )
    base = np.broadcast_to(np.asarray(base, dtype=float), y.shape[:-1])
    at, which, counts = np.unique(np.append(0.0, x.clip(0.0)), return_inverse=True, return_counts=True)
    mean = np.zeros((len(which), len(at)))
    mean[np.arange(len(which)), which] = 1 / counts[which]
    return at, np.concatenate([base[..., None], y], axis=-1) @ mean
