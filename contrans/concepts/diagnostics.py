"""How far to believe a concept vector: what the states behind it say about it."""

import torch

from contrans.concepts.estimators import Estimator


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


def split_half_cosine(positive: torch.Tensor, negative: torch.Tensor, estimator: Estimator) -> float:
    """Cosine between the directions from even and from odd rows; below .8 the vector is mostly noise."""
    if min(len(positive), len(negative)) < 4:
        return 0.0
    one = estimator(positive[::2], negative[::2])
    two = estimator(positive[1::2], negative[1::2])
    return float(torch.nn.functional.cosine_similarity(one, two, dim=0))


def held_out(positive: torch.Tensor, negative: torch.Tensor, estimator: Estimator) -> dict[str, float]:
    """AUC and d′ of states along a direction that was estimated without them (two-fold, both folds pooled).

    Args:
        positive: states with the concept [n, d].
        negative: states without it [m, d].
        estimator: how the direction is made.
    """
    if min(len(positive), len(negative)) < 4:
        return {"auc": 0.5, "d_prime": 0.0}
    measured = []
    for fold in (0, 1):
        direction = estimator(positive[fold::2], negative[fold::2])
        rest_p, rest_n = (
            positive[1 - fold :: 2].double() @ direction,
            negative[1 - fold :: 2].double() @ direction,
        )
        measured.append((auc(rest_p, rest_n), d_prime(rest_p, rest_n)))
    return {"auc": sum(a for a, _ in measured) / 2, "d_prime": sum(d for _, d in measured) / 2}
