"""Principal-component regression: least squares on the leading components of the source's states."""

import torch

from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.spectral import check_rows, filtered, held_out_scores, inverse
from contrans.maps.splits import SplitMoments


def pcr(paired: SplitMoments) -> Fit:
    """W = V_k diag(1/e_k) V_kᵀ D with k, the number of components, chosen by R² on held-out documents.

    Source: Massy 1965. Where ridge shrinks small components, this leaves them out.

    Raises:
        FitError: fewer than 10 rows, or states that do not vary.
    """
    check_rows(paired)
    ks = ranks(len(paired.train.mean_x))
    r2 = held_out_scores(paired, [_leading(paired.spectrum("train")[0], k) for k in ks])
    best = int(torch.argmax(r2))
    info = {"lambda": 0.0, "rho": 0.0, "heldout_r2": float(r2[best]), "k": ks[best]}
    return filtered(paired, _leading(paired.spectrum("whole")[0], ks[best]), info)


def ranks(width: int) -> list[int]:
    """Candidate ranks up to a width, each about 1.4 times the last."""
    return sorted({min(width, max(1, round(2 ** (i / 2)))) for i in range(2 * width.bit_length() + 1)})


def _leading(e: torch.Tensor, k: int) -> torch.Tensor:
    f = inverse(e)
    f[: len(e) - k] = 0  # eigenvalues ascend
    return f
