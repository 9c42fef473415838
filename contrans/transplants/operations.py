"""Pure edits of hidden states: `(hidden [..., d], shift [d]) → new hidden`, in float32, never in place."""

from collections.abc import Callable

import torch

Operation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def add(hidden: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """H + shift (Dong et al. 2024, arXiv 2405.13578, equation 4)."""
    return hidden + shift


OPERATIONS: dict[str, Operation] = {"add": add}
