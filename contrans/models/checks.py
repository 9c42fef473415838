"""Checks on weights that were just loaded."""

import torch
from torch import nn

from contrans.errors import ModelError


def check_finite(module: nn.Module, name: str) -> None:
    """Raises a ModelError that names the first weight of a module that is not finite everywhere."""
    for path, weight in module.named_parameters():
        if weight.is_meta or not weight.is_floating_point() or weight.element_size() < 2 or not weight.numel():
            continue
        # The extremes carry NaN and infinity through, and need no mask as large as the weight.
        low, high = torch.aminmax(weight.detach())
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise ModelError(
                f"The weight {path} of {name} holds NaN or infinite values, so the file is damaged or was "
                "cast to too small a dtype. Fetch the model again, or load it with dtype='float32'."
            )
