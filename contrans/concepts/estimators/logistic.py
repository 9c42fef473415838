"""Logistic regression: the direction that best tells the sides apart, state by state."""

import torch
from torch.nn.functional import softplus

from contrans.concepts.estimators.sides import check_sides, with_length_of_means
from contrans.errors import FitError

PENALTY = 1.0
"""Weight of ½‖w‖² beside the summed loss; the usual default where values are standardised."""
_MOST_STEPS = 100


def logistic(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """The weights of an L2-penalised logistic regression on standardised states, in the units of the states again.

    w, b = argmin Σ_i c_i log(1 + exp(−y_i (w·z_i + b))) + ½ ‖w‖², where z are the states with mean 0 and variance 1 in
    every value, y = ±1 is the side, and c (mean 1) gives both sides the same weight whatever their number. The
    direction is w divided by each value's deviation; a value that never varies gets 0. Solved by Newton's method in
    the span of the rows, so that few rows of a wide model cost little. Source of the probe: Alain and Bengio 2016
    (arXiv 1610.01644); of the solver: Hastie, Tibshirani and Friedman 2009, equations 4.26 and 18.15.

    Args:
        positive: states with the concept [n, d].
        negative: states without it [m, d].

    Returns:
        The direction [d], float64, as long as the mean difference.

    Raises:
        FitError: a side is empty, both have the same mean, or the solver does not settle.
        StateError: a state is not finite.
    """
    positive, negative = check_sides(positive, negative)
    states = torch.cat([positive, negative])
    deviation = states.std(0, correction=0)
    # a value that never varies shows nothing but the rounding of its mean
    deviation = torch.where(deviation > 1e-12 * states.abs().amax(0), deviation, torch.inf)
    z = (states - states.mean(0)) / deviation
    n, m = len(positive), len(negative)
    sides = torch.cat([torch.ones_like(states[:n, 0]), -torch.ones_like(states[n:, 0])])
    counts = (n + m) / torch.where(sides > 0, 2.0 * n, 2.0 * m)
    coordinates, basis = _in_span(z)
    weights = basis @ _newton(coordinates, sides, counts)
    return with_length_of_means(weights / deviation, positive, negative)


def _in_span(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates [n, r] of rows [n, d] in an orthonormal basis [d, r] that holds them; the identity where n ≥ d."""
    n, d = rows.shape
    if n >= d:
        return rows, torch.eye(d, dtype=rows.dtype, device=rows.device)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    kept = values > 1e-12 * values[-1]
    lengths = values[kept].sqrt()
    return vectors[:, kept] * lengths, rows.T @ (vectors[:, kept] / lengths)


def _newton(rows: torch.Tensor, sides: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Weights [r] of the penalised regression of sides [n] on rows [n, r], by Newton steps with halving."""
    design = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
    penalty = torch.full_like(design[0], PENALTY)
    penalty[-1] = 0.0  # the intercept

    def loss(w: torch.Tensor) -> float:
        return float((counts * softplus(-sides * (design @ w))).sum() + (penalty * w * w).sum() / 2)

    w = torch.zeros_like(penalty)
    for _ in range(_MOST_STEPS):
        wrong = torch.sigmoid(-sides * (design @ w))
        gradient = penalty * w - design.T @ (counts * sides * wrong)
        hessian = design.T @ (design * (counts * wrong * (1 - wrong))[:, None])
        hessian.diagonal().add_(penalty)
        step = torch.linalg.solve(hessian, gradient)
        gain, now, rate = float(gradient @ step), loss(w), 1.0
        while loss(w - rate * step) > now - 1e-4 * rate * gain and rate > 1e-9:
            rate /= 2
        w = w - rate * step
        if gain <= 1e-12 * len(rows):
            return w[:-1]
    raise FitError(f"The logistic regression did not settle in {_MOST_STEPS} steps; use lda or mean_difference.")
