"""Procrustes between partly whitened spaces: between a rotation, which favours wide directions, and ridge."""

from dataclasses import replace

import torch

from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.spectral import check_rows
from contrans.maps.paired import PairedStates
from contrans.states.moments import Moments

POWER, RHO = 0.25, 0.01


def whitened(paired: PairedStates, *, power: float = POWER) -> Fit:
    """W = s·Cx⁻ᵃ R Cyᵃ with R the rotation nearest to Cx⁻ᵃ Sxy Cy⁻ᵃ.

    With a = 0 this is Procrustes: the few directions in which both spaces vary the most decide the rotation. With a = ½
    all directions count alike. A concept lies in neither the widest nor the narrowest ones, so a = ¼ by default.

    Source: Artetxe, Labaka & Agirre 2018 (AAAI), whitening, orthogonal mapping and de-whitening, with powers of the
    covariances in place of their inverse roots.

    Args:
        paired: the rows.
        power: a, from 0 to ½.

    Raises:
        FitError: fewer than 10 rows, or states that do not vary.
    """
    check_rows(paired)
    targets = replace(paired, x=paired.y, spectra={}, moments=None)
    train, whole = paired.train, paired.whole
    weight = _rotated(train, paired.spectrum("train"), targets.spectrum("train"), power)
    ch, dh, qh = paired.held.about(train.mean_x, train.mean_y)
    r2 = 1 - (qh - 2 * float((weight * dh).sum()) + float((weight * (ch @ weight)).sum())) / qh
    e, v = paired.spectrum("whole")
    weight = _rotated(whole, (e, v), targets.spectrum("whole"), power)
    # nothing is shrunk; of a wider source only as many directions are kept as the target has
    u = torch.linalg.svd(weight, full_matrices=False).U
    info = {
        "lambda": RHO * float(e.mean()),
        "rho": RHO,
        "heldout_r2": r2,
        "power": power,
        "n": whole.n,
        "n_heldout": paired.held.n,
    }
    return Fit(weight, whole.mean_y - whole.mean_x @ weight, u @ u.T, info)


def _rotated(
    m: Moments,
    source: tuple[torch.Tensor, torch.Tensor],
    target: tuple[torch.Tensor, torch.Tensor],
    power: float,
) -> torch.Tensor:
    cross = m.cross()
    narrow, (wide, back) = _power(source, -power), (_power(target, p) for p in (power, -power))
    u, _, vt = torch.linalg.svd(narrow @ (cross / m.n) @ back, full_matrices=False)
    weight = narrow @ u @ vt @ wide
    scale = float((weight * cross).sum()) / max(float((weight * (m.sxx @ weight)).sum()), 1e-300)
    return scale * weight


def _power(spectrum: tuple[torch.Tensor, torch.Tensor], power: float) -> torch.Tensor:
    e, v = spectrum
    return (v * (e + RHO * e.mean()) ** power) @ v.T
