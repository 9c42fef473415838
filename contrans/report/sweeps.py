"""A sweep at a glance: a table of value × effect, and a line over numbers or a heat map over anything else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contrans.errors import ArtifactError
from contrans.models.known import tokens_seen
from contrans.models.reference import short_name
from contrans.report.drawing import as_png, colour_of, draw_curve, error_of, new_figure
from contrans.validation.grids import Grid
from contrans.validation.row_table import MEAN
from contrans.validation.wording import shown, spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARMS = ("unsteered", "transplanted", "own", "paper")
"""Arms that a sweep is about; the others are controls of each point."""
_LOGARITHMIC_FROM = 10  # how many times the largest value is the smallest
_MILLION = 10**6


def value_labels(values: Sequence[Any]) -> list[str]:
    """Short names for the values of a key: what ids and paths have in common is left out, tokens seen are added."""
    texts = ["null" if value is None else str(value) for value in values]
    start = 0
    if len(set(texts)) > 1 and all(isinstance(value, str) for value in values):
        alike = next(i for i, column in enumerate(zip(*(f"{t}\0" for t in texts), strict=False)) if len({*column}) > 1)
        start = max(texts[0].rfind(mark, 0, alike) for mark in "/@") + 1
    seen = [tokens_seen(value) if isinstance(value, str) else None for value in values]
    return [
        text[start:] if tokens is None else f"{text[start:]} ({_tokens(tokens)})"
        for text, tokens in zip(texts, seen, strict=True)
    ]


def sweep_grid(document: Mapping[str, Any]) -> Grid:
    """A row for each point: the effect of the arms, gain recovered, and what was chosen.

    Args:
        document: of a sweep, see `flows.results`.

    Raises:
        ArtifactError: there are no points.
    """
    points, keys = _points(document)
    arms = [arm for arm in ARMS if any(arm in (point["summary"] or {}) for point in points)]
    columns = [*keys, *map(spoken, arms), "gain recovered", "blocks", "rows"]
    labels = [value_labels([point["values"][key] for point in points]) for key in keys]
    rows = []
    for i, point in enumerate(points):
        summary = point["summary"] or {}
        cells = [_interval(summary.get(name)) for name in (*arms, "gain_recovered")]
        rows.append((*(of_key[i] for of_key in labels), *cells, *_chosen(point["choice"])))
    return Grid(f"{_effect(points)} by {' and '.join(keys)}, test items", tuple(columns), tuple(rows))


def sweep_figure(document: Mapping[str, Any]) -> bytes:
    """A PNG: for one key with numbers a line for each arm with intervals, else a heat map of the transplant's gain.

    The heat map has a row for each concept and a column for each value; for two keys a row for each value of the first
    and a column for each of the second, with the mean over concepts.

    Args:
        document: of a sweep, see `flows.results`.

    Raises:
        ArtifactError: there are no points.
    """
    points, keys = _points(document)
    if _numbers(points, keys):
        figure, axes = draw_line(document)
        return as_png(figure, axes, title=sweep_title(document), legend="test items, 95 % interval")
    from contrans.report.heatmap import heatmap

    return heatmap(title=sweep_title(document), unit=f"gain in {_effect(points)}", **gains(document))


def sweep_title(document: Mapping[str, Any]) -> str:
    """What the figures of a sweep are called: its models and keys."""
    points, keys = _points(document)
    source, target = (_side(document["spec"], points, side) for side in ("source", "target"))
    return f"{source} → {target}, by {' and '.join(keys)}"


def draw_line(document: Mapping[str, Any]) -> tuple[Figure, Axes]:
    """The line figure of `sweep_figure` and its axes, before it becomes pixels."""
    points, [key] = _points(document)
    done = sorted((p for p in points if p["summary"]), key=lambda p: p["values"][key])
    figure, axes = new_figure()
    for arm in ARMS:
        found = [(p["values"][key], p["summary"][arm]) for p in done if arm in p["summary"]]
        found = [(x, of_arm) for x, of_arm in found if of_arm["value"] is not None]
        if not found:
            continue
        draw_curve(axes, arm, [(x, of_arm["value"]) for x, of_arm in found])
        for x, of_arm in found:
            if of_arm["low"] is not None and of_arm["high"] is not None:
                axes.errorbar(x, of_arm["value"], error_of(of_arm), color=colour_of(arm), capsize=4, zorder=5)
    values = [point["values"][key] for point in points]
    if min(values) > 0 and max(values) >= _LOGARITHMIC_FROM * min(values):
        axes.set_xscale("log")
    axes.set_xticks(sorted(values), [f"{value:g}" for value in sorted(values)], minor=False)
    axes.minorticks_off()
    axes.set(xlabel=key, ylabel=_effect(points))
    return figure, axes


def gains(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the heat map of `sweep_figure` shows: `values`, `low` and `high` [rows, columns], `rows` and `columns`.

    A point that failed has NaN.
    """
    points, keys = _points(document)
    labels = [list(dict.fromkeys(value_labels([point["values"][key] for point in points]))) for key in keys]
    concepts = list(dict.fromkeys(row["concept"] for point in points for row in point["rows"] if _is_gain(row)))
    mean = MEAN if MEAN in concepts else (concepts or [MEAN])[0]
    if len(keys) == 1:
        single = [c for c in concepts if c != MEAN] or [mean]
        names = [*single, MEAN] if len(single) > 1 and MEAN in concepts else single
        cells = [[_gain(point, name) for point in points] for name in names]
        rows, columns = ["mean" if name == MEAN else name for name in names], labels[0]
    else:
        rows, columns = labels
        in_order = iter(points)
        cells = [[_gain(next(in_order), mean) for _ in columns] for _ in rows]
    parts = {name: [[cell[i] for cell in line] for line in cells] for i, name in enumerate(("values", "low", "high"))}
    return {**parts, "rows": rows, "columns": columns}


def _points(document: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[str]]:
    points, keys = document["sweep"]["points"], list(document["sweep"]["keys"])
    if not points:
        raise ArtifactError("The sweep has no points; give the document of a sweep as `contrans run` wrote it.")
    return points, keys


def _numbers(points: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> bool:
    values = [point["values"][keys[0]] for point in points]
    return len(keys) == 1 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _is_gain(row: Mapping[str, Any]) -> bool:
    return (row["arm"], row["metric"]) == ("transplanted", "gain")


def _gain(point: Mapping[str, Any], concept: str) -> tuple[float, float, float]:
    row = next((r for r in point["rows"] if _is_gain(r) and r["concept"] == concept), None)
    if row is None:
        return math.nan, math.nan, math.nan
    low, high = (math.nan if row[end] is None else row[end] for end in ("low", "high"))
    return row["value"], low, high


def _effect(points: Sequence[Mapping[str, Any]]) -> str:
    metrics = dict.fromkeys(metric for point in points for metric in point["effects"].values())
    return " or ".join(map(spoken, metrics)) or "effect"


def _side(spec: Mapping[str, Any], points: Sequence[Mapping[str, Any]], side: str) -> str:
    # revisions are no part of a short name, so checkpoints of one model have one
    names = {short_name(point["values"].get(side, spec.get(side))) for point in points}
    return names.pop() if len(names) == 1 else f"each {side}"


def _interval(found: Mapping[str, Any] | None) -> str:
    return "–" if found is None else shown(found["value"], found["low"], found["high"])


def _chosen(choice: Mapping[str, Any] | None) -> tuple[str, str]:
    if choice is None:
        return "–", "–"
    chosen = choice["chosen"]
    return f"{chosen['source_block']} → {chosen['target_block']}", " + ".join(chosen["mix"])


def _tokens(n: int) -> str:
    return f"{n / (1000 * _MILLION):.3g} B tokens" if n >= 1000 * _MILLION else f"{n / _MILLION:.3g} M tokens"
