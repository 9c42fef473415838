"""What ridge, least squares and principal-component regression share: a filter on the source's spectrum.

With C = Sxx/n = V diag(e) Vᵀ and B = Vᵀ Sxy/n, each of them is W = V diag(f) B for its own f(e), so that one
eigendecomposition of a source block serves every λ, every k and every target block.
"""

import torch

from contrans.errors import FitError
from contrans.maps.estimators.fit import Fit
from contrans.maps.splits import SplitMoments
from contrans.states.moments import gram

MIN_ROWS = 10


def check_rows(paired: SplitMoments) -> None:
    """Refuses fits on too few rows.

    Raises:
        FitError: fewer than 10 rows to fit on, or none held out.
    """
    if paired.train.n < MIN_ROWS or paired.held.n < 1:
        raise FitError(
            f"A map needs at least {MIN_ROWS} paired rows beside those held out, not {paired.train.n}; give more texts."
        )


def held_out_scores(paired: SplitMoments, filters: list[torch.Tensor]) -> torch.Tensor:
    """R² on the held-out rows of W = V diag(f) B for each filter f [ds], from moments alone.

    With Ch, Dh, qh the held-out moments about the means fitted on:
    SSE = qh − 2 f·diag(B(VᵀDh)ᵀ) + fᵀ[(VᵀChV) ∘ (BBᵀ)]f.

    Raises:
        FitError: the target states do not vary.
    """
    train, held = paired.train, paired.held
    _, v = paired.spectrum("train")
    dx, dy = held.mean_x - train.mean_x, held.mean_y - train.mean_y
    qh = held.syy / held.n + float(dy @ dy)
    if qh <= 0:
        raise FitError("The target states do not vary at this block; the corpus must hold different texts.")
    b = train.along(v) / train.n
    dh = (held.along(v) / held.n).addr_(dx @ v, dy)
    cross = torch.linalg.vecdot(b, dh)
    f = torch.stack(filters)
    quad = paired.held_in_axes() * gram(b.T)
    return 1 - (qh - 2 * f @ cross + ((f @ quad) * f).sum(1)) / qh


def filtered(paired: SplitMoments, f: torch.Tensor, info: dict[str, float | int | None]) -> Fit:
    """The map W = V diag(f) B on all rows, with b = ȳ − x̄ W and what the filter leaves of a direction."""
    whole = paired.whole
    e, v = paired.spectrum("whole")
    weight = v @ ((f / whole.n)[:, None] * whole.along(v))
    return Fit(
        weight,
        whole.mean_y - whole.mean_x @ weight,
        (v * (e * f)) @ v.T,
        {"n": whole.n, "n_heldout": paired.held.n, **info},
    )


def inverse(e: torch.Tensor) -> torch.Tensor:
    """1/e where e [ds] is above rounding, else 0: the pseudo-inverse."""
    return torch.where(e > e.max() * len(e) * torch.finfo(torch.float64).eps, 1 / e.clamp_min(1e-300), 0.0)
