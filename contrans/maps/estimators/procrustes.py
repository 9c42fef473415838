"""Procrustes: a rotation (or semi-orthogonal map) and one scale."""

import torch

from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.spectral import check_rows
from contrans.maps.splits import SplitMoments
from contrans.states.moments import Moments


def procrustes(paired: SplitMoments) -> Fit:
    """W = s·UVᵀ with Sxy = U diag(σ) Vᵀ: distances are kept up to a scale, so no direction is favoured.

    Source: Schönemann 1966; for unequal widths UVᵀ is semi-orthogonal, and s is the least-squares scale for it.

    Raises:
        FitError: fewer than 10 rows.
    """
    check_rows(paired)
    weight, _ = _rotation(paired.train)
    ch, dh, qh = paired.held.about(paired.train.mean_x, paired.train.mean_y)
    r2 = 1 - (qh - 2 * float((weight * dh).sum()) + float((weight * (ch @ weight)).sum())) / qh
    whole = paired.whole
    weight, kept = _rotation(whole)
    info = {"lambda": 0.0, "rho": 0.0, "heldout_r2": r2, "n": whole.n, "n_heldout": paired.held.n}
    return Fit(weight, whole.mean_y - whole.mean_x @ weight, kept, info)


def _rotation(m: Moments) -> tuple[torch.Tensor, torch.Tensor]:
    u, sigma, vt = torch.linalg.svd(m.cross(), full_matrices=False)
    rotation = u @ vt
    scale = float(sigma.sum()) / max(float((rotation * (m.sxx @ rotation)).sum()), 1e-300)
    return scale * rotation, u @ u.T
