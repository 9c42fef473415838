"""Ways to turn two groups of states into one direction, one file each.

An estimator is a function `(positive [n, d], negative [m, d]) → direction [d]`, in float64 and in the units of the
states. All directions are as long as the mean difference, so that a dose means the same for each.
"""

from collections.abc import Callable

import torch

from contrans.concepts.estimators.lda import lda
from contrans.concepts.estimators.logistic import logistic
from contrans.concepts.estimators.mean_difference import mean_difference
from contrans.concepts.estimators.pca import pca

Estimator = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ESTIMATORS: dict[str, Estimator] = {"mean_difference": mean_difference, "pca": pca, "lda": lda, "logistic": logistic}

__all__ = ["ESTIMATORS", "Estimator", "lda", "logistic", "mean_difference", "pca"]
