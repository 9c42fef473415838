"""Judging λ by what a map is for: differences of states, not states."""

import torch

from contrans.errors import FitError
from contrans.maps.paired import PairedStates

GROUP, DRAWS = 8, 256


def direction_scores(
    paired: PairedStates, rhos: list[float], *, group: int = GROUP, draws: int = DRAWS
) -> torch.Tensor:
    """Mean cosine of mapped to true differences between small groups of held-out rows, for every ρ.

    A concept vector is the difference of two groups' means. Two random groups of `group` rows differ in whatever their
    texts differ in, and averaging over a group damps the noise of single rows as a refined vector's does. R² weighs
    directions by their variance and so by what is common; a cosine counts each difference alike.

    Args:
        paired: the rows.
        rhos: λ in units of the mean eigenvalue of the source covariance.
        group: rows of each side.
        draws: pairs of groups, the same ones for every ρ.

    Raises:
        FitError: fewer than 16 held-out rows.
    """
    x, y = paired.held_rows
    size = min(group, len(x) // 2)
    if len(x) < 16:
        raise FitError(f"lambda_select: direction needs at least 16 held-out rows, not {len(x)}; give more texts.")
    generator = torch.Generator().manual_seed(paired.seed)
    picks = torch.stack([torch.randperm(len(x), generator=generator)[: 2 * size] for _ in range(draws)])
    sign = torch.cat([torch.ones(size), -torch.ones(size)]).double() / size
    dx = torch.einsum("dgw,g->dw", x[picks], sign)
    dy = torch.einsum("dgw,g->dw", y[picks], sign)
    e, v = paired.spectrum("train")
    b = paired.train.along(v) / paired.train.n
    rotated = dx @ v
    scores = []
    for rho in rhos:
        mapped = (rotated / (e + rho * e.mean())) @ b
        scores.append(torch.nn.functional.cosine_similarity(mapped, dy, dim=1).mean())
    return torch.stack(scores)
