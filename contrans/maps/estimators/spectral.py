"""What ridge, least squares and principal-component regression share: a filter on the source's spectrum.

With C = Sxx/n = V diag(e) Vᵀ and B = Vᵀ Sxy/n, each of them is W = V diag(f) B for its own f(e), so that one
eigendecomposition of a source block serves every λ, every k and every target block.
"""

from typing import Protocol

import torch

from contrans.errors import FitError
from contrans.maps.estimators.fit import Fit
from contrans.states.moments import Moments

MIN_ROWS = 10


class PairedMoments(Protocol):
    """Moments of paired rows: those fitted on, those held out, and all of them."""

    @property
    def train(self) -> Moments:
        """Moments of the rows that candidates are fitted on."""
        ...

    @property
    def held(self) -> Moments:
        """Moments of the rows that candidates are judged on."""
        ...

    @property
    def whole(self) -> Moments:
        """Moments of all rows, for the final fit."""
        ...

    def spectrum(self, of: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues and eigenvectors of the source covariance of "train" or "whole"."""
        ...


def check_rows(paired: PairedMoments) -> None:
    """Refuses fits on too few rows.

    Raises:
        FitError: fewer than 10 rows to fit on, or none held out.
    """
    if paired.train.n < MIN_ROWS or paired.held.n < 1:
        raise FitError(
            f"A map needs at least {MIN_ROWS} paired rows beside those held out, not {paired.train.n}; give more texts."
        )


def held_out_scores(paired: PairedMoments, filters: list[torch.Tensor]) -> torch.Tensor:
    """R² on the held-out rows of W = V diag(f) B for each filter f [ds], from moments alone.

    With Ch, Dh, qh the held-out moments about the means fitted on:
    SSE = qh − 2 f·diag(B(VᵀDh)ᵀ) + fᵀ[(VᵀChV) ∘ (BBᵀ)]f.

    Raises:
        FitError: the target states do not vary.
    """
    train = paired.train
    _, v = paired.spectrum("train")
    b = v.T @ (train.sxy / train.n)
    ch, dh, qh = paired.held.about(train.mean_x, train.mean_y)
    if qh <= 0:
        raise FitError("The target states do not vary at this block; the corpus must hold different texts.")
    cross = (b * (v.T @ dh)).sum(1)
    quad = (v.T @ ch @ v) * (b @ b.T)
    return torch.stack([1 - (qh - 2 * f @ cross + f @ quad @ f) / qh for f in filters])


def filtered(paired: PairedMoments, f: torch.Tensor, info: dict[str, float | int | None]) -> Fit:
    """The map W = V diag(f) B on all rows, with b = ȳ − x̄ W and what the filter leaves of a direction."""
    whole = paired.whole
    e, v = paired.spectrum("whole")
    weight = v @ (f[:, None] * (v.T @ (whole.sxy / whole.n)))
    return Fit(
        weight,
        whole.mean_y - whole.mean_x @ weight,
        (v * (e * f)) @ v.T,
        {"n": whole.n, "n_heldout": paired.held.n, **info},
    )


def inverse(e: torch.Tensor) -> torch.Tensor:
    """1/e where e [ds] is above rounding, else 0: the pseudo-inverse."""
    return torch.where(e > e.max() * len(e) * torch.finfo(torch.float64).eps, 1 / e.clamp_min(1e-300), 0.0)
