"""Linear discriminant: the mean difference whitened by how states vary within each side."""

import torch

from contrans.concepts.estimators.sides import check_sides, with_length_of_means
from contrans.errors import FitError

_LEAST_SHRINKAGE = 1e-6
"""A covariance of few rows has no inverse of its own; this share of the identity always gives it one."""


def lda(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """V ∝ Σ⁻¹ (mean(h⁺) − mean(h⁻)), with Σ the covariance within the sides, shrunk towards a sphere.

    Σ = (1 − s) S + s (tr S / d) I, where S is the covariance of the states about the mean of their own side, and s is
    the shrinkage of least expected error. Directions in which all states vary count less than in the mean difference.
    Sources: Fisher 1936; Ledoit and Wolf 2004 (J. Multivariate Analysis 88), lemma 3.3.

    Args:
        positive: states with the concept [n, d].
        negative: states without it [m, d].

    Returns:
        The direction [d], float64, as long as the mean difference.

    Raises:
        FitError: a side is empty, both have the same mean, or no state differs from its side's mean.
        StateError: a state is not finite.
    """
    positive, negative = check_sides(positive, negative)
    gap = positive.mean(0) - negative.mean(0)
    rows = torch.cat([positive - positive.mean(0), negative - negative.mean(0)])
    n, d = rows.shape
    sphere = float(rows.square().sum()) / (n * d)
    # rows that are all the same leave nothing but the rounding of their mean
    if sphere <= 1e-24 * float(torch.cat([positive, negative]).square().mean()):
        raise FitError(
            "All states of a side are the same, so there is no covariance to whiten by; use mean_difference."
        )
    share = max(shrinkage(rows), _LEAST_SHRINKAGE)
    ridge, scale = share * sphere, (1 - share) / n
    if n < d:
        # Woodbury: (r I + c XᵀX)⁻¹ g = (g − c Xᵀ (r I + c X Xᵀ)⁻¹ X g) / r, in n × n instead of d × d; r is a length
        direction = gap - scale * (rows.T @ _solved(rows @ rows.T * scale, ridge, rows @ gap))
    else:
        direction = _solved(rows.T @ rows * scale, ridge, gap)
    return with_length_of_means(direction, positive, negative)


def _solved(symmetric: torch.Tensor, ridge: float, wanted: torch.Tensor) -> torch.Tensor:
    symmetric.diagonal().add_(ridge)
    return torch.cholesky_solve(wanted[:, None], torch.linalg.cholesky(symmetric))[:, 0]


def shrinkage(rows: torch.Tensor) -> float:
    """The share s of the identity, 0 to 1, that makes (1 − s) S + s (tr S / d) I the best guess of the covariance.

    s = min(β², δ²) / δ², with δ² = ‖S − (tr S / d) I‖²_F / d and β² = Σ_k ‖x_k x_kᵀ − S‖²_F / (d n²).
    Source: Ledoit and Wolf 2004, lemma 3.3.

    Args:
        rows: centred samples [n, d].
    """
    n, d = rows.shape
    product = rows @ rows.T if n < d else rows.T @ rows
    size = float(product.square().sum()) / n**2  # ‖S‖²_F
    trace = float(rows.square().sum()) / n
    delta = (size - trace**2 / d) / d
    beta = (float(rows.square().sum(1).square().sum()) / n - size) / (d * n)
    return min(max(beta, 0.0), delta) / delta if delta > 0 else 1.0
