"""The moments of many block pairs at once: what pairs have in common is computed once."""

from collections.abc import Iterator, Mapping
from itertools import accumulate

import torch

from contrans.errors import StateError
from contrans.maps.paired import PairedStates, Rows, moments_in_axes, moments_of
from contrans.maps.splits import SourceCache

EXACT = ("procrustes", "whitened")
"""Estimators whose rotation hangs on the smallest singular values of the moments, which float32 products would blur."""

_WIDE = 3
"""How many times as many columns as the source the targets have where it pays to turn the source for their sake."""

_KEPT = 2**30
"""Bytes of float32 of the target blocks that are centred side by side, and kept for other source blocks."""


def paired_blocks(
    source_states: Mapping[int, torch.Tensor],
    target_states: Mapping[int, torch.Tensor],
    rows: Rows,
    center: str,
    spectra: Mapping[int, SourceCache],
    *,
    exact: bool,
) -> Iterator[tuple[tuple[int, int], PairedStates]]:
    """Every pair of blocks with its moments: a source block is centred once for target blocks that stand side by side.

    Args:
        source_states: per block [n, ds].
        target_states: per block [n, dt].
        rows: what is known of the n rows.
        center: "all" or "kind", see `PairedStates`.
        spectra: an empty dict for each source block, filled for all its pairs.
        exact: whether all products are in float64.

    Raises:
        FitError: source states that do not vary, or too few documents.
        StateError: states that are not finite or do not pair up.
    """
    for block, states in (*source_states.items(), *target_states.items()):
        if states.ndim != 2 or len(states) != len(rows.documents):
            raise StateError(
                f"Paired states need equally many rows and documents, but block {block} has the shape "
                f"{tuple(states.shape)} for {len(rows.documents)} documents."
            )
    ds = max((x.shape[1] for x in source_states.values()), default=0)
    for group in _side_by_side(target_states):
        ys = [target_states[lt] for lt in group]
        widths = [y.shape[1] for y in ys]
        turn = not exact and sum(widths) > _WIDE * ds and all(y.dtype != torch.float64 for y in ys)
        dtype = torch.float32 if turn else torch.float64
        kept = len(source_states) > 1 and len(rows.documents) * sum(widths) * dtype.itemsize <= _KEPT
        centred = list(rows.centred(ys, dtype)) if kept else None
        for ls, x in source_states.items():
            targets = rows.centred(ys, dtype) if centred is None else iter(centred)
            if turn:
                parts = moments_in_axes(rows, x, targets, sum(widths), center, spectra[ls])
            else:
                parts = moments_of(rows, x, targets, sum(widths))
            for lt, y, stop, width in zip(group, ys, accumulate(widths), widths, strict=True):
                moments = parts[0].columns(stop - width, stop), parts[1].columns(stop - width, stop)
                settings = rows.documents, rows.held_out, rows.seed, rows.kinds, center, rows.share, spectra[ls]
                yield (ls, lt), PairedStates(x, y, *settings, rows=rows, moments=moments)


def _side_by_side(states: Mapping[int, torch.Tensor]) -> Iterator[list[int]]:
    """The blocks in groups whose centred rows, and whose products with a source block, fit into memory."""
    group: list[int] = []
    size = 0
    for block, rows in states.items():
        if group and size + 4 * rows.numel() > _KEPT:
            yield group
            group, size = [], 0
        group.append(block)
        size += 4 * rows.numel()
    if group:
        yield group
