"""From hits on items to rows with intervals, and to the gain recovered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from contrans.validation.protocol import ItemProtocol
from contrans.validation.resampling import cluster_bootstrap, crossed_bootstrap
from contrans.validation.row_table import MEAN
from contrans.validation.shares import ACCURACY, SELECTIVITY, ConceptHits, mean_share, n_counted, once, share_of
from contrans.validation.statistics import bca_bootstrap, holm, mcnemar, wilson

Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Row:
    """One measured value.

    Attributes:
        concept: the concept, or "all" for the mean over concepts.
        protocol: such as "emotion".
        split: "dev", "test", or "generic" for text that has nothing to do with the concept.
        arm: one of `contrans.validation.arms.ARMS`.
        metric: "logit_accuracy", "kl", "gain" (of the effect, over the unsteered arm), "selectivity_gain" or
            "logit_accuracy_gain" (of the one that is not the effect), "gain_recovered", "mcnemar_p", …
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


def rows_of(
    protocol: ItemProtocol,
    hits: ConceptHits,
    split: str,
    arm: str,
    dose: float | None,
    *,
    draws: Sequence[ConceptHits] = (),
    seed: int = 0,
    bootstrap: bool = False,
) -> list[Row]:
    """Rows of an arm per concept and over all of them.

    Shares of single items get Wilson's interval; values that are no shares, and averages over draws and concepts, a
    bootstrap where `bootstrap` asks for it: BCa over items, and over the draws too where there are several.

    Args:
        protocol: whose items were scored.
        hits: how right they are.
        split: which items these are.
        arm: what was added.
        dose: how much of it.
        draws: the same for each draw, where there are several.
        seed: of the bootstrap.
        bootstrap: whether means get an interval.
    """
    rows = []
    for metric, by_concept in hits.items():
        for concept in [*by_concept, MEAN]:
            chosen = list(by_concept) if concept == MEAN else [concept]
            n = n_counted(by_concept, chosen)
            if n == 0:
                continue
            value = mean_share([by_concept[c] for c in chosen], once(protocol.n_items)).item()
            low = high = None
            if concept != MEAN and _is_share(*by_concept[concept]):
                share = wilson(round(value * n), n)
                low, high = share.low, share.high
            elif bootstrap:
                resamples = 2000 if concept == MEAN else 500
                low, high = _ends(protocol, hits, draws, metric, chosen, seed, resamples=resamples)
            rows.append(Row(concept, protocol.name, split, arm, metric, dose, value, low, high, n))
    return rows


def _is_share(hit: np.ndarray, counts: np.ndarray) -> bool:
    """Whether the mean is a share of items that are right or wrong, and no sum of several."""
    return set(np.unique(hit)) <= {0.0, 1.0} and int(counts.max()) <= 1


def _interval(statistic: Statistic, n_items: int, seed: int, *, draws: int = 2000) -> tuple[float, float]:
    low, high = bca_bootstrap(statistic, n_items, seed=seed, draws=draws)[:2]
    return low, high


def _ends(
    protocol: ItemProtocol,
    hits: ConceptHits,
    draws: Sequence[ConceptHits],
    metric: str,
    concepts: Sequence[str],
    seed: int,
    *,
    before: ConceptHits | None = None,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Ends of the interval of a mean over concepts, or of what it has more than another arm on the same items."""

    def less(weights: np.ndarray) -> np.ndarray | float:
        return 0.0 if before is None else mean_share([before[metric][c] for c in concepts], weights)

    if len(draws) < 2:
        of = [hits[metric][c] for c in concepts]
        return _interval(lambda w: mean_share(of, w) - less(w), protocol.n_items, seed, draws=resamples)
    # [draws, items] of each concept; which items count is the same for all draws
    stacked = [(np.stack([d[metric][c][0] for d in draws]), hits[metric][c][1]) for c in concepts]

    def crossed(weights: np.ndarray, of_draws: np.ndarray) -> np.ndarray:
        by_draw = np.mean([share_of(of_items, counts, weights) for of_items, counts in stacked], axis=0)
        return (by_draw * of_draws).mean(1) - less(weights)

    return crossed_bootstrap(crossed, protocol.n_items, len(draws), seed=seed, draws=resamples)


def gain_rows(
    protocol: ItemProtocol,
    hits: Mapping[str, ConceptHits],
    arm: str,
    dose: float | None,
    *,
    draws: Sequence[ConceptHits] = (),
    seed: int = 0,
) -> list[Row]:
    """How much more an arm has than the unsteered model on the same items, with paired intervals as `rows_of` has them.

    Of the effect it is the metric "gain"; of `ACCURACY` and `SELECTIVITY`, where the protocol has them and is about
    another, "logit_accuracy_gain" and "selectivity_gain".
    """
    rows = []
    others = [metric for metric in (ACCURACY, SELECTIVITY) if metric != protocol.effect]
    for name, metric in (("gain", protocol.effect), *((f"{other}_gain", other) for other in others)):
        after, before = hits[arm].get(metric, {}), hits["unsteered"].get(metric, {})
        for concept in [MEAN, *after] if after else []:
            chosen = list(after) if concept == MEAN else [concept]
            low, high = _ends(protocol, hits[arm], draws, metric, chosen, seed, before=hits["unsteered"])
            n = n_counted(after, chosen)
            w = once(protocol.n_items)
            value = (mean_share([after[c] for c in chosen], w) - mean_share([before[c] for c in chosen], w)).item()
            rows.append(Row(concept, protocol.name, "test", arm, name, dose, value, low, high, n))
    return rows


def false_alarms(
    protocol: ItemProtocol,
    hits: Mapping[str, ConceptHits],
    arm: str,
    dose: float | None,
    draws: Sequence[ConceptHits],
    *,
    seed: int = 0,
) -> Row:
    """The share of a control's draws that by themselves are significantly above the unsteered model in the mean effect.

    By a paired 95 % interval over items, as an arm of a single direction is judged: .025 of the draws are, if none has
    an effect, and more wherever any shift moves answers. The row's interval is Wilson's, over draws.
    """
    before = hits["unsteered"][protocol.effect].values()

    def raises(draw: ConceptHits) -> bool:
        after = draw[protocol.effect].values()

        def gain(weights: np.ndarray) -> np.ndarray:
            return mean_share(after, weights) - mean_share(before, weights)

        return cluster_bootstrap(gain, protocol.n_items, draws=1000, seed=seed)[0] > 0

    share = wilson(sum(map(raises, draws)), len(draws))
    ends = (share.value, share.low, share.high)
    return Row(MEAN, protocol.name, "test", arm, "false_alarms", dose, *ends, len(draws))


def _two_valued(before: np.ndarray, after: np.ndarray, counts: np.ndarray) -> bool:
    """Whether the items of each group are right or wrong, whatever values that has."""
    groups = range(1, int(counts.max()) + 1)
    return all(len(np.unique([before[counts == g], after[counts == g]])) <= 2 for g in groups)


def mcnemar_rows(protocol: ItemProtocol, hits: Mapping[str, ConceptHits], arm: str, dose: float | None) -> list[Row]:
    """Exact McNemar p-values of an arm against the unsteered model for each concept, and the same after Holm.

    None where items are not right or wrong. Of a selectivity all scenarios count alike, those of the concept and the
    others': whether they get its label.
    """
    after, before = hits[arm][protocol.effect], hits["unsteered"][protocol.effect]
    if not all(_two_valued(before[c][0], *of) for c, of in after.items()):
        return []
    # an item that is more right under one of the two is right under that one alone
    p = {
        c: mcnemar((before[c][0] > hit)[counts > 0], (hit > before[c][0])[counts > 0])
        for c, (hit, counts) in after.items()
    }
    n = {c: n_counted(after, [c]) for c in after}
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
