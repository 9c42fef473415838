"""A matrix at a glance: a table with a row for each cell and concept, and who can give to whom as a heat map."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contrans.models.reference import short_name
from contrans.report.heatmap import heatmap
from contrans.report.sweeps import value_labels
from contrans.validation.grids import Grid
from contrans.validation.row_table import MEAN
from contrans.validation.wording import shown, spoken

ARMS = ("unsteered", "transplanted", "own")
SHOWN = 60
"""Rows of a table that a terminal shows; of a larger matrix it shows the means over concepts alone."""
_GAINS = {"gain_recovered": "gain recovered", "gain": "gain"}


def model_labels(references: Sequence[str]) -> dict[str, str]:
    """Names of models that tell them apart: short ones, or what they do not have in common."""
    distinct = list(dict.fromkeys(references))
    short = [short_name(reference) for reference in distinct]
    labels = short if len(set(short)) == len(short) else value_labels(distinct)
    return dict(zip(distinct, labels, strict=True))


def matrix_grid(document: Mapping[str, Any], *, means: bool = False) -> Grid:
    """A row for each cell and concept: the effect of the arms, and the gain recovered.

    Args:
        document: of a matrix, see `flows.results`.
        means: only a row for each cell, with the mean over its concepts.
    """
    cells, keys = document["matrix"]["cells"], document["matrix"]["keys"]
    names = model_labels([cell[side] for side in ("source", "target") for cell in cells])
    values = {key: value_labels([cell["values"][key] for cell in cells]) for key in keys}
    rows: list[tuple[str, ...]] = []
    bold: set[int] = set()
    for i, cell in enumerate(cells):
        head = (names[cell["source"]], names[cell["target"]], *(values[key][i] for key in keys))
        if cell["error"] is not None:
            rows.append((*head, "failed", *("–" for _ in ARMS), "–"))
            continue
        effect = next(iter(cell["effects"].values()))
        concepts = list(dict.fromkeys(row["concept"] for row in cell["rows"] if row["metric"] == effect))
        single = [concept for concept in concepts if concept != MEAN]
        for concept in [MEAN] if means and MEAN in concepts else [*single, *([MEAN] if len(single) > 1 else [])]:
            found = [_row(cell["rows"], concept, arm, effect) for arm in ARMS]
            said = "mean" if concept == MEAN else concept
            bold |= {len(rows)} if concept == MEAN and not means else set()
            rows.append((*head, said, *(_interval(row) for row in (*found, _gain(cell, concept, "gain_recovered")))))
    effects = dict.fromkeys(effect for cell in cells for effect in cell["effects"].values())
    title = f"{' or '.join(map(spoken, effects)) or 'effect'}, test items"
    columns = ("source", "target", *keys, "concept", *map(spoken, ARMS), "gain recovered")
    return Grid(title, columns, tuple(rows), frozenset(bold))


def matrix_figures(document: Mapping[str, Any]) -> dict[str, bytes]:
    """PNGs by the names of their files: heat maps of source × target, one for each swept setting and family.

    What is shown is the gain recovered, or the gain itself where the target's own vector gains too little for a share
    of it anywhere. A pair that failed or is not in the matrix is grey; none are drawn where every cell failed.

    Args:
        document: of a matrix.
    """
    done = [cell for cell in document["matrix"]["cells"] if cell["error"] is None]
    metric = next((m for m in _GAINS if any(_gain(cell, MEAN, m) for cell in done)), None)
    if metric is None:
        return {}
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for cell in done:
        groups.setdefault(_setting(cell, document), []).append(cell)
    return {
        f"affinity{f'.{_safe(said)}' if said else ''}.png": _figure(cells, document, metric, said)
        for said, cells in groups.items()
    }


def affinity(cells: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """What a heat map shows: `values`, `low` and `high` [sources, targets], NaN where nothing is, `rows`, `columns`.

    Args:
        cells: of a matrix's document, one for each pair.
        metric: "gain_recovered" or "gain", the mean over concepts.
    """
    sources, targets = (list(dict.fromkeys(cell[side] for cell in cells)) for side in ("source", "target"))
    names = model_labels([*sources, *targets])
    parts: dict[str, Any] = {}
    for part in ("value", "low", "high"):
        filled = [[math.nan] * len(targets) for _ in sources]
        for cell in cells:
            row = _gain(cell, MEAN, metric)
            if row is not None and row[part] is not None:
                filled[sources.index(cell["source"])][targets.index(cell["target"])] = row[part]
        parts["values" if part == "value" else part] = filled
    return {**parts, "rows": [names[s] for s in sources], "columns": [names[t] for t in targets]}


def _figure(cells: Sequence[Mapping[str, Any]], document: Mapping[str, Any], metric: str, said: str) -> bytes:
    title = f"{document['spec']['name']}: from each source into each target" + (f", {said}" if said else "")
    return heatmap(title=title, unit=f"{_GAINS[metric]}, mean over concepts", **affinity(cells, metric))


def _setting(cell: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """What sets the cells of one heat map apart from those of the others."""
    families = dict.fromkeys(_family(other) for other in document["matrix"]["cells"])
    said = [f"{key}={value}" for key, value in cell["values"].items()]
    return ", ".join([*([_family(cell)] if len(families) > 1 else []), *said])


def _family(cell: Mapping[str, Any]) -> str:
    return short_name(str(cell["concepts"][0]).removesuffix("/*"))


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=-]+", "-", text).strip("-.")[:80]


def _row(rows: Sequence[Mapping[str, Any]], concept: str, arm: str, metric: str) -> Mapping[str, Any] | None:
    return next((r for r in rows if (r["concept"], r["arm"], r["metric"]) == (concept, arm, metric)), None)


def _gain(cell: Mapping[str, Any], concept: str, metric: str) -> Mapping[str, Any] | None:
    """The gain of a cell's transplants for a concept; of a single concept its own is the mean."""
    found = _row(cell["rows"], concept, "transplanted", metric)
    if found is None and concept == MEAN:
        every = list(_gains(cell["rows"], metric))
        found = every[0] if len(every) == 1 else None
    return found if found is not None and found["value"] is not None else None


def _gains(rows: Sequence[Mapping[str, Any]], metric: str) -> Iterator[Mapping[str, Any]]:
    return (row for row in rows if (row["arm"], row["metric"]) == ("transplanted", metric))


def _interval(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else shown(row["value"], row["low"], row["high"])
