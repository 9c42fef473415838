"""Reduced-rank regression: the ridge map squeezed through a few directions of the target."""

import torch

from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.pcr import ranks
from contrans.maps.estimators.ridge import RHO_GRID, penalised, penalty_filter, r2_of_lambdas
from contrans.maps.splits import SplitMoments
from contrans.states.moments import Moments


def reduced_rank(paired: SplitMoments) -> Fit:
    """W_r = W P_r, W the ridge map and P_r the projection on the leading r directions of what it predicts.

    λ and then r are chosen by R² on held-out documents. Source: Izenman 1975; with a penalty Mukherjee & Zhu 2011.

    Raises:
        FitError: fewer than 10 rows, or states that do not vary.
    """
    r2 = r2_of_lambdas(paired)
    rho = RHO_GRID[int(torch.argmax(r2))]
    train = paired.train
    e, v = paired.spectrum("train")
    weight = v @ (penalty_filter(e, rho)[:, None] * (train.along(v) / train.n))
    q = _predicted_directions(weight, train, rho * float(e.mean()))
    ch, dh, qh = paired.held.about(train.mean_x, train.mean_y)
    # SSE of W Q_r Q_rᵀ = qh − 2 Σ_j qⱼᵀWᵀDh qⱼ + Σ_j qⱼᵀWᵀChW qⱼ, so a running sum over j gives every rank
    gain = 2 * (q * ((weight.T @ dh) @ q)).sum(0) - (q * ((weight.T @ ch @ weight) @ q)).sum(0)
    ks = [k for k in ranks(q.shape[1]) if k <= q.shape[1]]
    scores = [float(1 - (qh - gain[:k].sum()) / qh) for k in ks]
    best = max(range(len(ks)), key=scores.__getitem__)
    full = penalised(paired, rho, {"heldout_r2": scores[best], "k": ks[best]})
    q = _predicted_directions(full.weight, paired.whole, float(full.info["lambda"] or 0))[:, : ks[best]]
    weight = full.weight @ q @ q.T
    whole = paired.whole
    return Fit(weight, whole.mean_y - whole.mean_x @ weight, full.retained, full.info)


def _predicted_directions(weight: torch.Tensor, moments: Moments, penalty: float) -> torch.Tensor:
    """Orthonormal directions [dt, dt] of what the map predicts, penalty included, the most varying first."""
    spread = weight.T @ (moments.sxx / moments.n) @ weight + penalty * weight.T @ weight
    return torch.linalg.eigh(spread)[1].flip(1)
