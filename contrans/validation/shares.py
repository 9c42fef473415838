"""Shares of items: from hits to means over items and concepts, under any weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # results are shown without torch, which protocols are made with
    from contrans.validation.protocol import Hits

ConceptHits = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
"""Per metric and concept: how right each item is (a share of draws), and which items count."""
ACCURACY = "logit_accuracy"
"""The share of the others' scenarios that get a concept's label, as Dong et al. 2024 count."""
SELECTIVITY = "selectivity"
"""The metric that tells a concept from a disturbance, see `contrans.validation.emotion.EmotionProtocol.hits`."""


def merged(draws: Sequence[Mapping[str, Hits]]) -> ConceptHits:
    """Hits by metric and concept, averaged over draws of a direction.

    Args:
        draws: per draw the hits of each concept.
    """
    out: ConceptHits = {}
    for concept, first in draws[0].items():
        for metric, (_, counts) in first.items():
            values = np.mean([draw[concept][metric][0] for draw in draws], axis=0, dtype=float)
            out.setdefault(metric, {})[concept] = (values, counts)
    return out


def dealt(draws: Sequence[ConceptHits]) -> list[ConceptHits]:
    """Arms with another direction for each concept, as transplants have, from draws of one that serves all concepts.

    What one direction gives to a label it takes from the others, so its mean over a family's concepts is near chance
    whatever it does, and a mean over concepts that is held against such means passes by arithmetic. Arm k takes its
    i-th concept from draw k + i, round and round: every draw serves every concept once.

    Args:
        draws: per draw the hits by metric and concept.
    """
    return [
        {
            metric: {c: draws[(k + i) % len(draws)][metric][c] for i, c in enumerate(by_concept)}
            for metric, by_concept in draw.items()
        }
        for k, draw in enumerate(draws)
    ]


def moved_wrong_way(after: Mapping[str, Hits], before: Mapping[str, Hits], metric: str) -> dict[str, Hits]:
    """An arm's hits of each concept with one more metric: whether an item has less of the concept than unsteered.

    A mean can rise while many items fall (Tan et al. 2024, arXiv 2407.12404, on anti-steerable examples). Half of them
    do under a direction that has nothing to do with the concept.

    Args:
        after: the arm's hits.
        before: those of the unsteered model.
        metric: what an item has more or less of.
    """
    return {
        concept: {**of, "moved_wrong_way": ((of[metric][0] < before[concept][metric][0]).astype(float), of[metric][1])}
        for concept, of in after.items()
    }


def n_counted(by_concept: Mapping[str, tuple[np.ndarray, np.ndarray]], concepts: Iterable[str]) -> int:
    """Items that count for concepts, each as often as it counts."""
    return int(sum(np.count_nonzero(by_concept[concept][1]) for concept in concepts))


def share_of(hit: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of hits over the items that count, for each row of weights [resamples, items].

    Of hits [items] one value a row, of hits [draws, items] one a row and draw.
    """
    total: np.ndarray | float = 0.0
    for group in range(1, max(1, int(counts.max())) + 1):
        of_group = (counts == group).astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):
            total = total + ((hit * of_group) @ weights.T / (weights @ of_group)).T
    return np.asarray(total)


def by_item(hit: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Hits [items] whose plain mean over the items that count is their share, NaN where an item does not count."""
    n = np.count_nonzero(counts)
    weight = np.full(len(counts), np.nan)
    for group in np.unique(counts[counts > 0]):
        weight[counts == group] = n / np.count_nonzero(counts == group)
    return hit * weight


def mean_share(by_concept: Iterable[tuple[np.ndarray, np.ndarray]], weights: np.ndarray) -> np.ndarray:
    """Mean over concepts of the weighted mean of hits [draws], for weights [draws, items]."""
    return np.mean([share_of(hit, counts, weights) for hit, counts in by_concept], axis=0)


def once(n_items: int) -> np.ndarray:
    """Weights [1, items] that count every item once: the point estimate."""
    return np.ones((1, n_items))
