"""Arms side by side: every arm scores the test items once, at the dose that dev chose for it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np

from contrans.validation.arms import Directions
from contrans.validation.dosing import Scorer, Tick
from contrans.validation.fluency import FluencyMeter
from contrans.validation.items import CURVE_DRAWS
from contrans.validation.protocol import Hits, ItemProtocol, graded_metric
from contrans.validation.rows import Row, accuracy_of, false_alarms, gain_recovered, gain_rows, mcnemar_rows, rows_of
from contrans.validation.shares import ConceptHits, dealt, mean_share, merged, moved_wrong_way, n_counted, once
from contrans.validation.statistics import random_p_value

log = logging.getLogger(__name__)

Summary = dict[str, dict[str, float | None]]
FEWEST = {"random": 99, "shuffled_map": 20}
"""Fewest draws of an arm that give a p-value: of the second, 20 just reach .05."""


def validate(
    protocol: ItemProtocol,
    directions: Directions,
    meter: FluencyMeter,
    *,
    arms: Sequence[str],
    doses: Mapping[str, float],
    draw_doses: Mapping[str, Sequence[float]] = {},
    random_draws: int = 20,
    seed: int = 0,
    tick: Tick = lambda _: None,
    keep: Callable[[Mapping[str, ConceptHits]], None] = lambda _: None,
) -> tuple[list[Row], Summary]:
    """Scores every arm on the test items once.

    Args:
        protocol: the test items.
        directions: directions of every arm.
        meter: what a shift costs on generic text.
        arms: arms to measure.
        doses: the dose of each arm.
        draw_doses: the dose of each draw of an arm, where they differ, see `contrans.validation.dosing.calibrate`.
        random_draws: random directions; from 99 on they give a p-value too, as from 20 on shuffled maps do.
        seed: of the bootstraps.
        tick: called with tokens done.
        keep: called once with what was right on each item, by arm.

    Returns:
        All rows, and the summary: gain recovered overall and per concept, and the mean effect of each arm, each with
        `value`, `low` and `high`; gain recovered is None where the own vector gains nothing significant. For each arm
        `effect_per_kl/ARM` is its gain over the unsteered model in units of the effect, per nat of KL; `random_p/ARM`
        and `shuffled_p/ARM` how often a draw of a control does as well, where there are enough (of random directions,
        another for each concept, see `contrans.validation.shares.dealt`), and `random_METRIC_p/ARM` and
        `shuffled_METRIC_p/ARM` the same by the protocol's graded metric, if it has one.
    """
    score = Scorer(protocol, directions, tick)
    concepts, effect = directions.concepts, protocol.effect
    rows: list[Row] = []
    hits: dict[str, ConceptHits] = {}
    rivals: dict[str, list[ConceptHits]] = {}
    unsteered = score.hits("unsteered", None)
    for arm in ["unsteered", *directions.steered(arms)]:
        dose = None if arm == "unsteered" else doses[arm]
        n_draws = random_draws if arm == "random" else directions.n_draws(arm)
        each = draw_doses.get(arm, [] if dose is None else [dose] * n_draws)[:n_draws]
        draws = score.hits_of_draws(arm, each or None, range(n_draws))
        if dose is not None:
            draws = [moved_wrong_way(found, unsteered, graded_metric(protocol)) for found in draws]
        hits[arm] = merged(draws)
        drawn = [merged([d]) for d in draws] if len(draws) > 1 else []
        rows += rows_of(protocol, hits[arm], "test", arm, dose, draws=drawn, seed=seed, bootstrap=True)
        if dose is None:
            continue
        rows += gain_rows(protocol, hits, arm, dose, draws=drawn, seed=seed)
        if drawn:
            rivals[arm] = dealt(drawn) if arm == "random" else drawn
            rows.append(false_alarms(protocol, hits, arm, dose, rivals[arm], seed=seed))
        elif arm != "random":
            rows += mcnemar_rows(protocol, hits, arm, dose)
        rows += _costs(protocol.name, meter, directions, arm, dose, each, seed, tick)
    if "prompt" in arms:
        rows += _asked_in_words(protocol, hits, unsteered, concepts, seed, tick)
    keep(hits)
    summary: Summary = {arm: accuracy_of(rows, arm, effect) for arm in hits}
    for control, draws in rivals.items():
        if len(draws) >= FEWEST[control]:
            found = _p_values(protocol, hits, control, draws, doses)
            rows += found
            mean = [r for r in found if r.concept == "all"]
            summary |= {f"{r.metric}/{r.arm}": {"value": r.value, "low": None, "high": None} for r in mean}
    summary |= _per_kl(rows, protocol, hits)
    if "own" in hits and "transplanted" in hits:
        for concept in ["all", *concepts]:
            names = concepts if concept == "all" else [concept]
            value, low, high = gain_recovered(hits, effect, names, protocol.n_items, seed)
            key = "gain_recovered" if concept == "all" else f"gain_recovered/{concept}"
            summary[key] = {"value": value, "low": low, "high": high}
            if value is not None:
                n = n_counted(hits["own"][effect], names)
                dose = doses["transplanted"]
                rows.append(
                    Row(concept, protocol.name, "test", "transplanted", "gain_recovered", dose, value, low, high, n)
                )
    return rows, summary


def _asked_in_words(
    protocol: ItemProtocol,
    hits: dict[str, ConceptHits],
    unsteered: Mapping[str, Hits],
    concepts: Sequence[str],
    seed: int,
    tick: Tick,
) -> list[Row]:
    ask = getattr(protocol, "prompted", None)
    if ask is None:
        log.warning("The protocol %s does not ask in words: the arm prompt is left out.", protocol.name)
        return []
    found = {}
    for concept in concepts:
        found[concept] = protocol.hits(ask(concept), concept)
        tick(protocol.n_tokens)
    hits["prompt"] = merged([moved_wrong_way(found, unsteered, graded_metric(protocol))])
    return [
        *rows_of(protocol, hits["prompt"], "test", "prompt", None, seed=seed, bootstrap=True),
        *gain_rows(protocol, hits, "prompt", None, seed=seed),
        *mcnemar_rows(protocol, hits, "prompt", None),
    ]


def _p_values(
    protocol: ItemProtocol,
    hits: Mapping[str, ConceptHits],
    control: str,
    by_draw: Sequence[ConceptHits],
    doses: Mapping[str, float],
) -> list[Row]:
    """How often a draw of a control does as well as an arm: p-values of the arms that carry the concept."""
    rows = []
    metrics = dict.fromkeys((protocol.effect, graded_metric(protocol)))
    for arm, metric in product(("transplanted", "own"), metrics):
        if arm not in hits:
            continue
        name = "_".join([control.removesuffix("_map"), *([metric] if metric != protocol.effect else ()), "p"])
        for concept in ["all", *hits[arm][metric]]:

            def value(of: ConceptHits, concept: str = concept, metric: str = metric) -> float:
                by_concept = of[metric]
                chosen = by_concept.values() if concept == "all" else [by_concept[concept]]
                return mean_share(chosen, once(protocol.n_items)).item()

            p = random_p_value(value(hits[arm]), np.array([value(d) for d in by_draw]), fewest=FEWEST[control])
            rows.append(Row(concept, protocol.name, "test", arm, name, doses[arm], p, None, None, len(by_draw)))
    return rows


def _per_kl(rows: Sequence[Row], protocol: ItemProtocol, hits: Mapping[str, ConceptHits]) -> Summary:
    out: Summary = {}
    kl = {r.arm: r.value for r in rows if (r.concept, r.metric, r.split) == ("all", "kl", "generic")}
    for r in rows:
        if (r.concept, r.metric) == ("all", "gain") and kl.get(r.arm, 0) > 0:
            cost = kl[r.arm]
            low, high = (None if v is None else v / cost for v in (r.low, r.high))
            out[f"effect_per_kl/{r.arm}"] = {"value": r.value / cost, "low": low, "high": high}
    return out


def _costs(
    protocol: str,
    meter: FluencyMeter,
    directions: Directions,
    arm: str,
    dose: float,
    each: Sequence[float],
    seed: int,
    tick: Tick,
) -> list[Row]:
    """What an arm costs, by concept and in the mean; of many draws each concept takes another one."""
    if arm == "random":
        of = [("all", draw) for draw in range(min(CURVE_DRAWS, len(each)))]
    else:
        of = [(concept, i % len(each)) for i, concept in enumerate(directions.concepts)]
    rows = []
    for concept, draw in of:
        cost = meter.measure(directions.shift(arm, concept, each[draw], draw), seed=seed)
        tick(cost.n_tokens)
        n = cost.n_tokens
        rows += [
            Row(concept, protocol, "generic", arm, "kl", dose, cost.kl, cost.kl_low, cost.kl_high, n),
            Row(concept, protocol, "generic", arm, "perplexity_ratio", dose, cost.perplexity_ratio, None, None, n),
        ]
    means = []
    for metric in ("kl", "perplexity_ratio"):
        values = [r.value for r in rows if r.metric == metric]
        n = sum(r.n for r in rows if r.metric == metric)
        means.append(Row("all", protocol, "generic", arm, metric, dose, float(np.mean(values)), None, None, n))
    return means if arm == "random" else [*rows, *means]
