"""Ways to turn two groups of states into one direction, one file each.

An estimator is a function `(positive [n, d], negative [m, d]) → direction [d]`, in float64.
"""

from collections.abc import Callable

import torch

from contrans.concepts.estimators.mean_difference import mean_difference

Estimator = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ESTIMATORS: dict[str, Estimator] = {"mean_difference": mean_difference}

__all__ = ["ESTIMATORS", "Estimator", "mean_difference"]
