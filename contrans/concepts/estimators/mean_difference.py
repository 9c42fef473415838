"""The mean difference: v = mean(h⁺) − mean(h⁻)."""

import torch

from contrans.concepts.estimators.sides import check_sides


def mean_difference(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """V = mean(h⁺) − mean(h⁻), which equals the mean of all pair differences.

    Source: Dong et al. 2024 (ConTrans, arXiv 2405.13578), equation 1.

    Args:
        positive: states with the concept [n, d].
        negative: states without it [m, d].

    Returns:
        The direction [d], float64, in the units of the states.

    Raises:
        FitError: a side is empty, or both have the same mean.
        StateError: a state is not finite.
    """
    positive, negative = check_sides(positive, negative)
    return positive.mean(0) - negative.mean(0)
