"""From hits on items to rows with intervals, and to the gain recovered."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from contrans.validation.emotion import EmotionProtocol
from contrans.validation.statistics import cluster_bootstrap, mcnemar, wilson

Hits = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
"""Per metric and concept: how right each item is (a share of draws), and which items count."""


@dataclass(frozen=True)
class Row:
    """One measured value.

    Attributes:
        concept: the concept, or "all" for the mean over concepts.
        protocol: "emotion".
        split: "dev", "test", or "generic" for text that has nothing to do with the concept.
        arm: one of `contrans.validation.arms.ARMS`.
        metric: "logit_accuracy", "token_accuracy", …
        dose: size of the shift in residual norms; None where nothing is shifted.
        value: the measured value.
        low: lower end of its 95 % interval, if it has one.
        high: upper end.
        n: items behind it.
    """

    concept: str
    protocol: str
    split: str
    arm: str
    metric: str
    dose: float | None
    value: float
    low: float | None
    high: float | None
    n: int

    def to_json(self) -> dict[str, object]:
        """The row as a JSON object."""
        return asdict(self)


def _share(hit: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted share of hits among the items that count, for each row of weights [draws, items]."""
    with np.errstate(invalid="ignore"):
        return (weights @ (hit * counts)) / (weights @ counts.astype(float))


def mean_share(by_concept: Iterable[tuple[np.ndarray, np.ndarray]], weights: np.ndarray) -> np.ndarray:
    """Mean over concepts of the weighted share of hits [draws], for weights [draws, items]."""
    return np.mean([_share(hit, counts, weights) for hit, counts in by_concept], axis=0)


def once(n_items: int) -> np.ndarray:
    """Weights [1, items] that count every item once: the point estimate."""
    return np.ones((1, n_items))


def rows_of(
    protocol: EmotionProtocol,
    hits: Hits,
    split: str,
    arm: str,
    dose: float | None,
    *,
    seed: int = 0,
    bootstrap: bool = False,
) -> list[Row]:
    """Rows of an arm per concept and over all of them.

    Shares of single items get Wilson's interval, averages over draws and concepts a bootstrap over items.

    Args:
        protocol: whose items were scored.
        hits: how right they are.
        split: which items these are.
        arm: what was added.
        dose: how much of it.
        seed: of the bootstrap.
        bootstrap: whether the mean over concepts gets an interval.
    """
    rows = []
    for metric, by_concept in hits.items():
        for concept, (hit, counts) in by_concept.items():
            n = int(counts.sum())
            value = _share(hit, counts, once(len(hit))).item()
            if set(np.unique(hit)) <= {0.0, 1.0}:
                share = wilson(round(value * n), n)
                low, high = share.low, share.high
            else:
                low, high = cluster_bootstrap(
                    lambda w, h=hit, c=counts: _share(h, c, w), len(hit), seed=seed, draws=500
                )
            rows.append(Row(concept, "emotion", split, arm, metric, dose, value, low, high, n))
        value = mean_share(by_concept.values(), once(len(protocol.items))).item()
        low = high = None
        if bootstrap:
            low, high = cluster_bootstrap(
                lambda w, b=by_concept: mean_share(b.values(), w),
                len(protocol.items),
                seed=seed,
            )
        n = int(sum(c.sum() for _, c in by_concept.values()))
        rows.append(Row("all", "emotion", split, arm, metric, dose, value, low, high, n))
    return rows


def mcnemar_rows(concepts: Sequence[str], hits: Mapping[str, Hits], arm: str, dose: float | None) -> list[Row]:
    """Exact McNemar p-values of an arm against the unsteered model, on the negatives of each concept."""
    rows = []
    for concept in concepts:
        after, counts = hits[arm]["logit_accuracy"][concept]
        before, _ = hits["unsteered"]["logit_accuracy"][concept]
        p = mcnemar(before[counts] > 0.5, after[counts] > 0.5)
        rows.append(Row(concept, "emotion", "test", arm, "mcnemar_p", dose, p, None, None, int(counts.sum())))
    return rows


def accuracy_of(rows: Sequence[Row], arm: str) -> dict[str, float | None]:
    """An arm's mean logit accuracy on test with its interval, for the summary."""
    row = next(r for r in rows if (r.concept, r.arm, r.metric, r.split) == ("all", arm, "logit_accuracy", "test"))
    return {"value": row.value, "low": row.low, "high": row.high}


def gain_recovered(
    hits: Mapping[str, Hits], concepts: Sequence[str], n_items: int, seed: int
) -> tuple[float | None, float | None, float | None]:
    """(transplanted − unsteered) / (own − unsteered) in mean logit accuracy, if the denominator is significant."""

    def mean(arm: str, weights: np.ndarray) -> np.ndarray:
        return mean_share([hits[arm]["logit_accuracy"][c] for c in concepts], weights)

    def own_gain(weights: np.ndarray) -> np.ndarray:
        return mean("own", weights) - mean("unsteered", weights)

    def recovered(weights: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (mean("transplanted", weights) - mean("unsteered", weights)) / own_gain(weights)

    if cluster_bootstrap(own_gain, n_items, seed=seed)[0] <= 0:
        return None, None, None
    low, high = cluster_bootstrap(recovered, n_items, seed=seed)
    return recovered(once(n_items)).item(), low, high
