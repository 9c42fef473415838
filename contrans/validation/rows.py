"""From hits on items to rows with intervals, and to the gain recovered."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from contrans.validation.protocol import Hits, ItemProtocol
from contrans.validation.statistics import bca_bootstrap, holm, mcnemar, wilson

ConceptHits = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
"""Per metric and concept: how right each item is (a share of draws), and which items count."""
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Row:
    """One measured value.

    Attributes:
        concept: the concept, or "all" for the mean over concepts.
        protocol: such as "emotion".
        split: "dev", "test", or "generic" for text that has nothing to do with the concept.
        arm: one of `contrans.validation.arms.ARMS`.
        metric: "logit_accuracy", "kl", "gain" (over the unsteered arm), "gain_recovered", "mcnemar_p", …
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


def _share(hit: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of hits over the items that count, for each row of weights [draws, items]."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ (hit * counts)) / (weights @ counts.astype(float))


def mean_share(by_concept: Iterable[tuple[np.ndarray, np.ndarray]], weights: np.ndarray) -> np.ndarray:
    """Mean over concepts of the weighted mean of hits [draws], for weights [draws, items]."""
    return np.mean([_share(hit, counts, weights) for hit, counts in by_concept], axis=0)


def once(n_items: int) -> np.ndarray:
    """Weights [1, items] that count every item once: the point estimate."""
    return np.ones((1, n_items))


def rows_of(
    protocol: ItemProtocol,
    hits: ConceptHits,
    split: str,
    arm: str,
    dose: float | None,
    *,
    seed: int = 0,
    bootstrap: bool = False,
) -> list[Row]:
    """Rows of an arm per concept and over all of them.

    Shares of single items get Wilson's interval; values that are no shares, and averages over draws and concepts, a BCa
    bootstrap over items where `bootstrap` asks for it.

    Args:
        protocol: whose items were scored.
        hits: how right they are.
        split: which items these are.
        arm: what was added.
        dose: how much of it.
        seed: of the bootstrap.
        bootstrap: whether means get an interval.
    """
    rows = []
    for metric, by_concept in hits.items():
        for concept, (hit, counts) in by_concept.items():
            n = int(counts.sum())
            if n == 0:
                continue
            value = _share(hit, counts, once(len(hit))).item()
            low = high = None
            if _binary(hit):
                share = wilson(round(value * n), n)
                low, high = share.low, share.high
            elif bootstrap:
                low, high = _interval(lambda w, h=hit, c=counts: _share(h, c, w), protocol.n_items, seed, draws=500)
            rows.append(Row(concept, protocol.name, split, arm, metric, dose, value, low, high, n))
        value = mean_share(by_concept.values(), once(protocol.n_items)).item()
        low = high = None
        if bootstrap:
            low, high = _interval(lambda w, b=by_concept: mean_share(b.values(), w), protocol.n_items, seed)
        n = int(sum(c.sum() for _, c in by_concept.values()))
        rows.append(Row("all", protocol.name, split, arm, metric, dose, value, low, high, n))
    return rows


def _binary(hit: np.ndarray) -> bool:
    return set(np.unique(hit)) <= {0.0, 1.0}


def _interval(statistic: Statistic, n_items: int, seed: int, *, draws: int = 2000) -> tuple[float, float]:
    low, high = bca_bootstrap(statistic, n_items, seed=seed, draws=draws)[:2]
    return low, high


def gain_rows(
    protocol: ItemProtocol, hits: Mapping[str, ConceptHits], arm: str, dose: float | None, *, seed: int = 0
) -> list[Row]:
    """How much more of the effect an arm has than the unsteered model on the same items, with paired BCa intervals."""
    after, before = hits[arm][protocol.effect], hits["unsteered"][protocol.effect]
    rows = []
    for concept in ["all", *after]:
        chosen = list(after) if concept == "all" else [concept]

        def gain(weights: np.ndarray, chosen: Sequence[str] = chosen) -> np.ndarray:
            return mean_share([after[c] for c in chosen], weights) - mean_share([before[c] for c in chosen], weights)

        low, high = _interval(gain, protocol.n_items, seed)
        n = int(sum(after[c][1].sum() for c in chosen))
        value = gain(once(protocol.n_items)).item()
        rows.append(Row(concept, protocol.name, "test", arm, "gain", dose, value, low, high, n))
    return rows


def mcnemar_rows(protocol: ItemProtocol, hits: Mapping[str, ConceptHits], arm: str, dose: float | None) -> list[Row]:
    """Exact McNemar p-values of an arm against the unsteered model for each concept, and the same after Holm.

    None where the effect is no share of items that are right or wrong.
    """
    after, before = hits[arm][protocol.effect], hits["unsteered"][protocol.effect]
    if not all(_binary(h) for h, _ in (*after.values(), *before.values())):
        return []
    p = {c: mcnemar(before[c][0][counts] > 0.5, hit[counts] > 0.5) for c, (hit, counts) in after.items()}
    n = {c: int(counts.sum()) for c, (_, counts) in after.items()}
    return [
        Row(concept, protocol.name, "test", arm, metric, dose, value, None, None, n[concept])
        for metric, values in (("mcnemar_p", p), ("mcnemar_p_holm", holm(p)))
        for concept, value in values.items()
    ]


def accuracy_of(rows: Sequence[Row], arm: str, effect: str) -> dict[str, float | None]:
    """An arm's mean effect on test with its interval, for the summary."""
    row = next(r for r in rows if (r.concept, r.arm, r.metric, r.split) == ("all", arm, effect, "test"))
    return {"value": row.value, "low": row.low, "high": row.high}


def gain_recovered(
    hits: Mapping[str, ConceptHits], effect: str, concepts: Sequence[str], n_items: int, seed: int
) -> tuple[float | None, float | None, float | None]:
    """(transplanted − unsteered) / (own − unsteered) in the mean effect, if the denominator is significant."""

    def mean(arm: str, weights: np.ndarray) -> np.ndarray:
        return mean_share([hits[arm][effect][c] for c in concepts], weights)

    def own_gain(weights: np.ndarray) -> np.ndarray:
        return mean("own", weights) - mean("unsteered", weights)

    def recovered(weights: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return (mean("transplanted", weights) - mean("unsteered", weights)) / own_gain(weights)

    if _interval(own_gain, n_items, seed)[0] <= 0:
        return None, None, None
    low, high = _interval(recovered, n_items, seed)
    return recovered(once(n_items)).item(), low, high
