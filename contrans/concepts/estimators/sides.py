"""What every estimator does with its two groups of states: refuse what holds no direction, and keep one length."""

import torch

from contrans.errors import FitError, StateError


def check_sides(positive: torch.Tensor, negative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both groups of states in float64, once they can be told apart at all.

    Args:
        positive: states with the concept [n, d].
        negative: states without it [m, d].

    Raises:
        FitError: a side is empty, the sides differ in width, or their means are the same.
        StateError: a state is NaN or infinite.
    """
    for side, states in (("positive", positive), ("negative", negative)):
        if states.ndim != 2 or not len(states):
            raise FitError(f"There are no {side} states; a direction needs states of both sides, each as rows [n, d].")
        if not bool(torch.isfinite(states).all()):
            raise StateError(f"The {side} states are not finite everywhere; capture them in float32 or bfloat16.")
    if positive.shape[1] != negative.shape[1]:
        raise FitError(
            f"Positive states have {positive.shape[1]} values and negative ones {negative.shape[1]}; "
            f"take both from the same block of the same model."
        )
    positive, negative = positive.double(), negative.double()
    one, other = positive.mean(0), negative.mean(0)
    # float32 states that differ at all differ by 1e-7 of their size: less is the rounding of the means
    if float((one - other).norm()) <= 1e-12 * float(one.norm() + other.norm()):
        raise FitError(
            "Positive and negative states are the same on average; check that the texts of the sides differ."
        )
    return positive, negative


def with_length_of_means(direction: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """A direction [d] given the length of the mean difference of the states, so that doses stay comparable.

    Raises:
        FitError: the direction is zero or not finite.
    """
    length = direction.norm()
    if not bool(torch.isfinite(length)) or float(length) == 0:
        raise FitError("The states give no direction of a finite length; use mean_difference, or more texts.")
    return direction * ((positive.mean(0) - negative.mean(0)).norm() / length)
