"""Reading logits over a whole vocabulary, a few rows at a time, so that no second copy of them stands in memory."""

import torch

_AT_ONCE = 1 << 18
"""Logits in float32 that are worked on at once: a megabyte stays in a processor's cache."""


def by_rows(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Views of logits [rows, vocabulary] with as many rows each as are worked on at once."""
    return logits.split(max(1, _AT_ONCE // logits.shape[-1]))


def total(logits: torch.Tensor) -> torch.Tensor:
    """Logarithm of Σ exp over the vocabulary, float32 [rows], of logits [rows, vocabulary] in any number format."""
    return torch.cat([part.float().logsumexp(-1) for part in by_rows(logits)])


def total_and_best(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logarithm of Σ exp over the vocabulary, float32 [rows], and the likeliest token, int64 [rows]."""
    totals, best = [], []
    for part in by_rows(logits):
        exact = part.float()
        highest, at = exact.max(-1)
        totals.append(highest + (exact - highest[:, None]).exp_().sum(-1).log())
        best.append(at)
    return torch.cat(totals), torch.cat(best)
