"""bf16 products against fp32 ones, both ours."""

from functools import partial

import torch

from contrans import capture, contrast_sets, refine

from .capture import BATCH_TOKENS, source, texts
from .ratio import Benchmark, Ratio, compare

UPPER = (26, 27, 28)
"""Blocks near the top, where concepts are read."""


def bf16_vs_fp32(rounds: int) -> Ratio:
    """Times of both, and how near the vectors of six emotions are."""
    fast, exact = (partial(capture, source(), texts(), precision=p, batch_tokens=BATCH_TOKENS) for p in PAIR)
    cosines = vector_cosines()
    notes = {"cosine": cosines.min().item(), "cosine_upper": cosines[:, list(UPPER)].min().item()}
    return compare(fast, exact, rounds=rounds, notes={k: round(v, 5) for k, v in notes.items()})


PAIR = ("bfloat16", "float32")


def vector_cosines() -> torch.Tensor:
    """Of each emotion and block the cosine of the vectors from bf16 and fp32 products: [emotions, blocks]."""
    rows = []
    for contrast in contrast_sets(["emotion/*"]):
        fast, exact = (refine(source(), contrast, precision=p).directions for p in PAIR)
        rows.append([torch.cosine_similarity(fast[b], exact[b], dim=0).item() for b in sorted(exact)])
    return torch.tensor(rows)


BENCHMARKS = [Benchmark("capture_bf16_vs_fp32", "our own capture with fp32 products", 1.6, bf16_vs_fp32)]
