"""Ridge regression with fewer rows than dimensions: the n×n Gram matrix, and exact leave-one-out."""

import torch

from contrans.errors import FitError
from contrans.maps.estimators.fit import Fit


def ridge_gram(x: torch.Tensor, y: torch.Tensor, rhos: tuple[float, ...]) -> Fit:
    """W = Xᵀ(XXᵀ + nλ)⁻¹Y on centred rows, with λ chosen by exact leave-one-out; the same W as from moments.

    Args:
        x: source states [n, ds].
        y: target states [n, dt].
        rhos: λ in units of the mean eigenvalue of the source covariance.

    Raises:
        FitError: states that do not vary.
    """
    n, ds = x.shape
    mean_x, mean_y = x.double().mean(0), y.double().mean(0)
    xc, yc = x.double() - mean_x, y.double() - mean_y
    if not bool(xc.any()) or not bool(yc.any()):
        raise FitError("The states do not vary at this block; the corpus must hold different texts.")
    e, u = torch.linalg.eigh(xc @ xc.T)
    e = e.clamp_min(0)
    penalties = [rho * float(e.sum()) / ds for rho in rhos]
    r2 = leave_one_out_r2(e, u, yc, penalties)
    best = int(torch.argmax(r2))
    dual = u @ ((u.T @ yc) / (e + penalties[best])[:, None])
    weight = xc.T @ dual
    retained = xc.T @ (u / (e + penalties[best])) @ u.T @ xc
    facts = {
        "lambda": penalties[best] / n,
        "rho": rhos[best],
        "heldout_r2": float(r2[best]),
        "n": n,
        "n_heldout": n,
    }
    return Fit(weight, mean_y - mean_x @ weight, retained, facts)


def leave_one_out_r2(e: torch.Tensor, u: torch.Tensor, yc: torch.Tensor, penalties: list[float]) -> torch.Tensor:
    """R² of predicting each row from all others, for every penalty, without fitting n times.

    The residual of a left-out row is its residual in the whole fit over 1 − H_ii, with
    H = 1/n + U diag(e/(e + nλ)) Uᵀ, the intercept's share included (Allen 1974). Both R² sums are about means that the
    left-out row did not enter: y_i − ȳ₋ᵢ = (y_i − ȳ)·n/(n − 1).

    Args:
        e: eigenvalues of the centred Gram matrix [n].
        u: its eigenvectors [n, n].
        yc: centred targets [n, dt].
        penalties: nλ.

    Returns:
        R² for each penalty, float64.
    """
    n = len(e)
    total = (yc * (n / (n - 1))).square().sum()
    projected = u.T @ yc
    values = []
    for penalty in penalties:
        shrink = e / (e + penalty)
        leverage = 1 / n + (u.square() * shrink).sum(1)
        residual = yc - u @ (shrink[:, None] * projected)
        values.append(1 - (residual / (1 - leverage).clamp_min(1e-12)[:, None]).square().sum() / total)
    return torch.stack(values)
