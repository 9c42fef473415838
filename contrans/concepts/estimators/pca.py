"""Principal component of the differences: where they point, whatever their length and sign."""

import torch

from contrans.concepts.estimators.sides import check_sides, with_length_of_means


def pca(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """The first principal component of the differences D, uncentred: v = argmax ‖D v‖ over ‖v‖ = 1.

    Sides of equal number are taken as pairs and differenced row by row. Where they are not (one concept against all
    others of its family), each state is differenced from the other side's mean. Centring would remove the very mean
    that carries the concept. The sign is that of the mean projection, the length that of the mean difference.
    Source: Zou et al. 2023 (Representation Engineering, arXiv 2310.01405), §3.1.

    Args:
        positive: states with the concept [n, d].
        negative: states without it [m, d].

    Returns:
        The direction [d], float64, as long as the mean difference.

    Raises:
        FitError: a side is empty, or both have the same mean.
        StateError: a state is not finite.
    """
    positive, negative = check_sides(positive, negative)
    differences = _differences(positive, negative)
    n, d = differences.shape
    # the smaller of the two Gram matrices has the same leading component
    if n < d:
        component = differences.T @ torch.linalg.eigh(differences @ differences.T).eigenvectors[:, -1]
    else:
        component = torch.linalg.eigh(differences.T @ differences).eigenvectors[:, -1]
    sign = 1.0 if float(differences.mean(0) @ component) >= 0 else -1.0
    return with_length_of_means(sign * component, positive, negative)


def _differences(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    if len(positive) == len(negative):
        return positive - negative
    return torch.cat([positive - negative.mean(0), positive.mean(0) - negative])
