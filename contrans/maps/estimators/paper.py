"""The paper's map: uncentred least squares of minimal norm, without bias, on 80 % of the rows."""

import torch

from contrans.errors import FitError
from contrans.maps.estimators.fit import Fit, held_out_r2
from contrans.maps.paired import PairedStates


def paper(paired: PairedStates) -> Fit:
    """F = argmin ‖H_src F − H_tgt‖² by SVD: F = V Σ⁻¹ Uᵀ H_tgt; no bias, no centring, no regulariser.

    Source: Dong et al. 2024 (arXiv 2405.13578), §3.2. Near n = ds this interpolates and its error peaks.

    Raises:
        FitError: fewer than 10 rows.
    """
    keep = ~paired.is_held_out
    x, y = paired.x[keep].double(), paired.y[keep].double()
    if len(x) < 10:
        raise FitError(f"A map needs at least 10 paired rows, not {len(x)}; give more texts.")
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    # singular values below rounding carry noise alone; NumPy's and LAPACK's cut
    inverse = torch.where(s > s[0] * max(x.shape) * torch.finfo(torch.float64).eps, 1 / s, 0)
    weight = vt.T @ (inverse[:, None] * (u.T @ y))
    bias = torch.zeros(y.shape[1], dtype=torch.float64)
    xh, yh = paired.x[paired.is_held_out], paired.y[paired.is_held_out]
    return Fit(
        weight,
        bias,
        vt[inverse > 0].T @ vt[inverse > 0],
        {
            "lambda": 0.0,
            "rho": 0.0,
            "heldout_r2": held_out_r2(weight, bias, xh, yh, y.mean(0)),
            "n": len(x),
            "n_heldout": len(xh),
        },
    )
