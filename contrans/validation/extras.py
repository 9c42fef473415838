"""What does a transplant cost beside its effect? Perplexity and capability as rows, such as every protocol has."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from contrans.errors import SpecError
from contrans.validation.arms import Directions
from contrans.validation.capability import CapabilityChange, CapabilityRow, capability_changes, counterpart
from contrans.validation.dosing import Scorer, Tick
from contrans.validation.perplexity import Perplexity, PerplexityProtocol, mean_perplexity
from contrans.validation.row_table import MEAN
from contrans.validation.rows import Row, gain_rows, rows_of
from contrans.validation.shares import ConceptHits, merged
from contrans.validation.statistics import holm, wilson

SCORE = "score"
"""The metric that a task is judged by, as more of it is better: of capability the effect."""
_METRICS = ("word_perplexity", "bits_per_byte")
_Z = 1.959963984540054  # of a 95 % interval


def perplexity_rows(
    protocol: PerplexityProtocol,
    directions: Directions,
    *,
    arms: Sequence[str],
    doses: Mapping[str, float],
    seed: int = 0,
    tick: Tick = lambda _: None,
) -> list[Row]:
    """Perplexity of the documents under every arm and concept.

    The effect is minus nats per byte, mean over documents, with paired intervals of its change in `gain`. Beside it
    stand `word_perplexity` and `bits_per_byte` of all documents together, and of steered arms
    `word_perplexity_ratio`, the word perplexity over the unsteered model's: 1 is no cost.

    Args:
        protocol: the documents.
        directions: directions of every arm.
        arms: arms to measure beside the unsteered model.
        doses: the dose of each.
        seed: of the bootstraps over documents.
        tick: called with tokens done.

    Returns:
        Rows of the split "test"; a single document has no intervals.
    """
    score = Scorer(protocol, directions, tick)
    hits: dict[str, ConceptHits] = {}
    rows: list[Row] = []
    base: Perplexity = score("unsteered", "", None)
    for arm in ["unsteered", *arms]:
        dose = None if arm == "unsteered" else doses[arm]
        hits[arm] = {protocol.effect: merged([score.hits(arm, dose)])[protocol.effect]}
        rows += rows_of(protocol, hits[arm], "test", arm, dose, seed=seed, bootstrap=True)
        read: dict[str, Perplexity] = {c: score(arm, c, dose) for c in directions.concepts}
        for concept in (*read, MEAN):
            found = list(read.values()) if concept == MEAN else [read[concept]]
            numbers = {metric: mean_perplexity(found, metric, seed=seed) for metric in _METRICS}
            if dose is not None:
                numbers["word_perplexity_ratio"] = mean_perplexity(found, base=base, seed=seed)
            rows += [
                Row(concept, protocol.name, "test", arm, metric, dose, e.value, *_ends(e.low, e.high), e.n)
                for metric, e in numbers.items()
            ]
        if dose is not None:
            rows += gain_rows(protocol, hits, arm, dose, seed=seed)
    # of one document every resample is the same, which is no interval
    return rows if protocol.n_items > 1 else [replace(row, low=None, high=None) for row in rows]


def capability_rows(
    unsteered: Sequence[CapabilityRow],
    steered: Mapping[str, Sequence[CapabilityRow]],
    *,
    dose: float,
    arm: str = "transplanted",
    seed: int = 0,
) -> list[Row]:
    """Capability before and under the transplants; the "concept" of a row is the task.

    The effect `score` is the task's first metric of which more is better, or minus its first one. Values under the
    arm are means over the concepts put in, item by item; `score/CONCEPT` are those of each, where there are several.
    Of every task `gain` is the change of the score with its paired interval, and `mcnemar_p` (over tasks
    `mcnemar_p_holm`) the exact p-value where one concept was put in and items are right or wrong.

    Args:
        unsteered: rows of the model as it is.
        steered: per concept the rows of the same tasks under its transplant.
        dose: of the transplants.
        arm: what was added.
        seed: of the bootstrap.

    Raises:
        SpecError: there are no concepts, or a task was not run on the same items every time.
    """
    if not steered:
        raise SpecError("No run under a transplant is given, so there is nothing to compare; give one per concept.")
    after = [_mean([counterpart(row, rows) for rows in steered.values()]) for row in unsteered]
    changes = {(c.task, c.metric): c for c in capability_changes(unsteered, after, seed=seed)}
    rows: list[Row] = []
    p_values: dict[str, float] = {}
    for task in dict.fromkeys(row.task for row in unsteered):
        before = [row for row in unsteered if row.task == task]
        judged = next((row for row in before if row.higher_is_better), before[0])
        sides = [("unsteered", None, before), (arm, dose, [counterpart(row, after) for row in before])]
        for name, of_dose, found in sides:
            rows.append(_row(task, name, SCORE, of_dose, counterpart(judged, found), sign=_sign(judged)))
            rows += [_row(task, name, row.metric, of_dose, row) for row in found]
        if len(steered) > 1:
            rows += [
                _row(task, arm, f"{SCORE}/{concept}", dose, counterpart(judged, of_concept), sign=_sign(judged))
                for concept, of_concept in steered.items()
            ]
        change = changes[task, judged.metric]
        rows.append(_gain(change, arm, dose, _sign(judged)))
        if change.p_value is not None:
            p_values[task] = change.p_value
    n = {row.concept: row.n for row in rows if row.metric == "gain"}
    for metric, values in (("mcnemar_p", p_values), ("mcnemar_p_holm", holm(p_values))):
        rows += [Row(t, "capability", "test", arm, metric, dose, p, None, None, n[t]) for t, p in values.items()]
    return rows


def _mean(runs: Sequence[CapabilityRow]) -> CapabilityRow:
    """One metric of one task over several runs on the same items, item by item where it is a mean of them."""
    first = runs[0]
    if len(runs) == 1:
        return first
    items = {name: float(np.mean([row.items[name] for row in runs])) for name in first.items}
    mean = replace(first, value=float(np.mean([row.value for row in runs])), stderr=None, items=items)
    if len(items) < 2 or not mean.is_mean:
        return mean
    return replace(mean, stderr=float(np.std(list(items.values()), ddof=1) / math.sqrt(len(items))))


def _row(task: str, arm: str, metric: str, dose: float | None, of: CapabilityRow, *, sign: int = 1) -> Row:
    low = high = None
    if of.is_mean and set(of.items.values()) <= {0.0, 1.0}:
        share = wilson(round(of.value * len(of.items)), len(of.items))
        low, high = share.low, share.high
    elif of.stderr is not None:
        low, high = _ends(of.value - _Z * of.stderr, of.value + _Z * of.stderr)
    return Row(task, "capability", "test", arm, metric, dose, sign * of.value, *_signed(low, high, sign), of.n)


def _gain(change: CapabilityChange, arm: str, dose: float, sign: int) -> Row:
    value = sign * (change.steered - change.unsteered)
    ends = _signed(change.low, change.high, sign)
    return Row(change.task, "capability", "test", arm, "gain", dose, value, *ends, change.n)


def _sign(row: CapabilityRow) -> int:
    return 1 if row.higher_is_better else -1


def _signed(low: float | None, high: float | None, sign: int) -> tuple[float | None, float | None]:
    if low is None or high is None:
        return None, None
    return (low, high) if sign > 0 else (-high, -low)


def _ends(low: float, high: float) -> tuple[float | None, float | None]:
    return (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)
