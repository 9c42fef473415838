"""Ridge regression from moments: one eigendecomposition of the source covariance serves every λ."""

import torch

from contrans.errors import FitError
from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.gram import ridge_gram
from contrans.maps.paired import PairedStates
from contrans.states.moments import Moments

RHO_GRID = tuple(10 ** (k / 2) for k in range(-12, 3))
"""λ = ρ · tr(C)/ds for these ρ, 10⁻⁶ to 10 in half decades."""


def ridge(paired: PairedStates) -> Fit:
    """W = (C + λI)⁻¹ D, b = ȳ − x̄ W, with λ chosen on held-out documents and all rows in the final fit.

    Source: Hoerl & Kennard 1970; held out by document because tokens of one text are correlated, which makes
    generalised cross-validation choose too small a λ. With fewer rows than dimensions, each from a document of its own,
    every row is held out once: exact leave-one-out.

    Raises:
        FitError: fewer than 10 rows, or states that do not vary.
    """
    n, ds = paired.x.shape
    if 10 <= n < ds and len(set(paired.documents)) == n:
        return ridge_gram(paired.x, paired.y, RHO_GRID)
    return ridge_moments(paired.train, paired.held)


def ridge_moments(train: Moments, held: Moments, *, rhos: tuple[float, ...] = RHO_GRID) -> Fit:
    """Ridge regression from the moments of the rows fitted on and of those held out.

    Args:
        train: moments of the rows that λ is fitted on.
        held: moments of the rows that λ is chosen on.
        rhos: λ in units of the mean eigenvalue of the source covariance.

    Raises:
        FitError: fewer than 10 rows, or states that do not vary.
    """
    if train.n < 10:
        raise FitError(f"A map needs at least 10 paired rows, not {train.n}; give more texts.")
    r2 = held_out_r2_of_lambdas(train, held, rhos)
    best = int(torch.argmax(r2))
    weight, bias, retained, lam = solve(train.merge(held), rhos[best])
    return Fit(
        weight,
        bias,
        retained,
        {
            "lambda": lam,
            "rho": rhos[best],
            "heldout_r2": float(r2[best]),
            "n": train.n + held.n,
            "n_heldout": held.n,
        },
    )


def _eigen(moments: Moments) -> tuple[torch.Tensor, torch.Tensor]:
    e, v = torch.linalg.eigh(moments.sxx / moments.n)
    if float(e[-1]) <= 0:
        raise FitError("The source states do not vary at this block; the corpus must hold different texts.")
    return e.clamp_min(0), v


def solve(moments: Moments, rho: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """W [ds, dt], b [dt], (C + λ)⁻¹C [ds, ds] and λ for one ρ."""
    e, v = _eigen(moments)
    lam = rho * float(e.mean())
    weight = v @ ((v.T @ (moments.sxy / moments.n)) / (e + lam)[:, None])
    return weight, moments.mean_y - moments.mean_x @ weight, (v * (e / (e + lam))) @ v.T, lam


def held_out_r2_of_lambdas(train: Moments, held: Moments, rhos: tuple[float, ...]) -> torch.Tensor:
    """R² on the held-out rows for every ρ, from moments alone.

    With Ch, Dh, qh the held-out moments about the means fitted on, B = VᵀD and f = 1/(e + λ):
    SSE = qh − 2 f·diag(B(VᵀDh)ᵀ) + fᵀ[(VᵀChV) ∘ (BBᵀ)]f.
    """
    e, v = _eigen(train)
    b = v.T @ (train.sxy / train.n)
    ch, dh, qh = held.about(train.mean_x, train.mean_y)
    if qh <= 0:
        raise FitError("The target states do not vary at this block; the corpus must hold different texts.")
    cross = (b * (v.T @ dh)).sum(1)
    quad = (v.T @ ch @ v) * (b @ b.T)
    values = []
    for rho in rhos:
        f = 1 / (e + rho * e.mean())
        values.append(1 - (qh - 2 * f @ cross + f @ quad @ f) / qh)
    return torch.stack(values)
