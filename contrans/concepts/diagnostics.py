"""How far to believe a concept vector: what the states behind it say about it."""

import torch

from contrans.concepts.estimators import Estimator
from contrans.errors import FitError

_FEWEST = 4
"""Fewest states of a side that can be halved with something left to estimate from."""


def auc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Area under the ROC curve of scores [n] against scores [m]: P(positive > negative), ties half."""
    scores = torch.cat([positive, negative]).double()
    _, inverse, counts = torch.unique(scores, return_inverse=True, return_counts=True)
    upper = counts.cumsum(0).double()
    ranks = (upper - (counts.double() - 1) / 2)[inverse]
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def d_prime(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """Distance of the two means of scores in units of their pooled standard deviation (0 if both are constant)."""
    variance = (positive.double().var() + negative.double().var()) / 2
    gap = positive.double().mean() - negative.double().mean()
    return float(gap / variance.sqrt()) if float(variance) > 0 else 0.0


def pair_cosine(positive: torch.Tensor, negative: torch.Tensor, *, paired: bool) -> float:
    """Mean cosine between the differences of two different pairs; 1 if the concept is one direction for all texts.

    With u_i the unit differences, (‖Σ u_i‖² − n) / (n (n − 1)).

    Args:
        positive: states with the concept [n, d].
        negative: states without it [m, d].
        paired: whether the i-th states belong together; if not, each positive is differenced from the negatives'
            mean.
    """
    differences = positive.double() - (negative.double() if paired else negative.double().mean(0))
    lengths = differences.norm(dim=1)
    units = differences[lengths > 0] / lengths[lengths > 0, None]
    n = len(units)
    return float((units.sum(0).square().sum() - n) / (n * (n - 1))) if n > 1 else 0.0


def diagnose(
    positive: torch.Tensor, negative: torch.Tensor, estimator: Estimator, *, paired: bool = False
) -> dict[str, float]:
    """What the states of one block say about the direction that an estimator makes of them.

    Args:
        positive: states with the concept [n, d].
        negative: states without it [m, d].
        estimator: how the direction is made.
        paired: whether the i-th states of both sides belong together.

    Returns:
        split_half_cosine: between the directions from even and from odd rows; below .8 the vector is mostly noise.
        auc, d_prime: of states along a direction that was estimated without them, mean of both halves.
        pair_cosine: see there.
        n: number of positive states.
        Where a side has fewer than 4 states, or a half of them gives no direction, there is no evidence for the
        vector, and the first three are those of noise: 0, .5 and 0.
    """
    found = {"pair_cosine": pair_cosine(positive, negative, paired=paired), "n": len(positive)}
    halves = [(positive[i::2].double(), negative[i::2].double()) for i in (0, 1)]
    directions = [_direction(*half, estimator) for half in halves]
    one, two = directions
    if one is None or two is None:
        return {"split_half_cosine": 0.0, "auc": 0.5, "d_prime": 0.0, **found}
    # each direction judges the half that it was not made of
    scores = [(p @ v, n @ v) for (p, n), v in zip(halves, (two, one), strict=True)]
    return {
        "split_half_cosine": float(torch.nn.functional.cosine_similarity(one, two, dim=0)),
        "auc": sum(auc(p, n) for p, n in scores) / 2,
        "d_prime": sum(d_prime(p, n) for p, n in scores) / 2,
        **found,
    }


def _direction(positive: torch.Tensor, negative: torch.Tensor, estimator: Estimator) -> torch.Tensor | None:
    if min(len(positive), len(negative)) < _FEWEST // 2:
        return None
    try:
        return estimator(positive, negative)
    except FitError:  # the whole gave a direction, and that a half gives none is what is to be told
        return None
