"""Ridge regression from moments: one eigendecomposition of the source covariance serves every λ."""

import torch

from contrans.maps.estimators.directions import direction_scores
from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.gram import ridge_gram
from contrans.maps.estimators.spectral import check_rows, held_out_scores
from contrans.maps.paired import PairedStates
from contrans.maps.splits import SplitMoments

RHO_GRID = tuple(10 ** (k / 2) for k in range(-12, 3))
"""λ = ρ · tr(C)/ds for these ρ, 10⁻⁶ to 10 in half decades."""


def ridge(paired: PairedStates, *, lambda_select: str = "r2") -> Fit:
    """W = (C + λI)⁻¹ D, b = ȳ − x̄ W, with λ chosen on held-out documents and all rows in the final fit.

    Source: Hoerl & Kennard 1970; held out by document because tokens of one text are correlated, which makes
    generalised cross-validation choose too small a λ. With fewer rows than dimensions, each from a document of its own,
    every row is held out once: exact leave-one-out.

    Args:
        paired: the rows.
        lambda_select: "r2" takes the λ that predicts held-out states best; "direction" the one that turns differences
            of held-out states the least, which is what a concept vector is.

    Raises:
        FitError: fewer than 10 rows, or states that do not vary.
    """
    n, ds = paired.x.shape
    alike = paired.center == "all" and not paired.share
    if lambda_select == "r2" and alike and 10 <= n < ds and len(set(paired.documents)) == n:
        return ridge_gram(paired.x, paired.y, RHO_GRID)
    if lambda_select == "direction":
        return ridge_moments(paired, scores=direction_scores(paired, list(RHO_GRID)))
    return ridge_moments(paired)


def ridge_moments(paired: SplitMoments, *, scores: torch.Tensor | None = None) -> Fit:
    """Ridge regression from the moments of the rows fitted on and of those held out.

    Args:
        paired: the moments.
        scores: what λ is chosen by, one for each ρ of the grid; held-out R² if None.

    Raises:
        FitError: fewer than 10 rows, or states that do not vary.
    """
    r2 = r2_of_lambdas(paired)
    best = int(torch.argmax(r2 if scores is None else scores))
    info: dict[str, float | int | None] = {"heldout_r2": float(r2[best])}
    if scores is not None:
        info["heldout_direction_cosine"] = float(scores[best])
    return penalised(paired, RHO_GRID[best], info)


def penalised(paired: SplitMoments, rho: float, info: dict[str, float | int | None]) -> Fit:
    """The ridge map on all rows for one ρ."""
    whole = paired.whole
    inverse, retained = paired.penalised_inverse(rho)
    weight = (inverse @ whole.sxy).div_(whole.n)  # both along the same axes
    facts = {"lambda": rho * float(whole.sxx.diagonal().mean()) / whole.n, "rho": rho, **info}
    bias = whole.mean_y - whole.mean_x @ weight
    return Fit(weight, bias, retained, {"n": whole.n, "n_heldout": paired.held.n, **facts})


def penalty_filter(e: torch.Tensor, rho: float) -> torch.Tensor:
    """1/(e + λ) for eigenvalues e [ds] of the source covariance."""
    return 1 / (e + rho * e.mean())


def r2_of_lambdas(paired: SplitMoments, rhos: tuple[float, ...] = RHO_GRID) -> torch.Tensor:
    """R² on the held-out rows for every ρ.

    Raises:
        FitError: fewer than 10 rows, or states that do not vary.
    """
    check_rows(paired)
    e, _ = paired.spectrum("train")
    return held_out_scores(paired, [penalty_filter(e, rho) for rho in rhos])
