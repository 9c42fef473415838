"""A matrix as a picture: one colour for more, one for less, white for nothing, and the number in every cell."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from contrans.errors import SpecError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CELL = (1.0, 0.62)  # inches, wide enough for an interval in small print
_COLOURS = "RdBu_r"
_DARK = 0.6  # share of the range beyond which black on the colour cannot be read
_NO_VALUE = "#dddddd"


def heatmap(
    values: np.ndarray | Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    unit: str,
    low: np.ndarray | Sequence[Sequence[float]] | None = None,
    high: np.ndarray | Sequence[Sequence[float]] | None = None,
) -> bytes:
    """A heat map with diverging colours centred on 0.

    Args:
        values: [rows, columns]; NaN leaves a cell grey.
        rows: a label for each row.
        columns: a label for each column.
        title: above the figure.
        unit: beside the colour bar, such as "change of logit accuracy".
        low: lower ends of the values' intervals [rows, columns]. With `high`, intervals stand below the numbers, and
            the numbers whose interval leaves out 0 are bold.
        high: upper ends.

    Returns:
        A PNG.

    Raises:
        SpecError: values, labels or intervals do not have the same shape, or there are none.
    """
    figure, _ = draw_heatmap(values, rows, columns, title=title, unit=unit, low=low, high=high)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def draw_heatmap(
    values: np.ndarray | Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    unit: str,
    low: np.ndarray | Sequence[Sequence[float]] | None = None,
    high: np.ndarray | Sequence[Sequence[float]] | None = None,
) -> tuple[Figure, Axes]:
    """The figure of `heatmap` and its axes, before it becomes pixels; arguments and errors are those of `heatmap`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = _checked(values, rows, columns, "values")
    ends = None
    if low is not None and high is not None:
        ends = _checked(low, rows, columns, "lower ends"), _checked(high, rows, columns, "upper ends")
    elif low is not None or high is not None:
        raise SpecError("An interval has two ends; give both low and high, or neither.")
    reach = float(np.nanmax(np.abs(matrix), initial=0.0)) or 1.0

    longest = max(map(len, rows))
    size = (2.2 + 0.07 * longest + _CELL[0] * len(columns), 1.6 + _CELL[1] * len(rows))
    figure = Figure(figsize=(max(size[0], 4.5), size[1]), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(_NO_VALUE)
    image = axes.imshow(np.ma.masked_invalid(matrix), cmap=_COLOURS, vmin=-reach, vmax=reach, aspect="auto")
    for (i, j), value in np.ndenumerate(matrix):
        _write(axes, i, j, float(value), reach, None if ends is None else (float(ends[0][i, j]), float(ends[1][i, j])))
    slanted: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(columns)), columns, fontsize=9, **(slanted if max(map(len, columns)) > 10 else {}))
    axes.set_yticks(range(len(rows)), rows, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    # white lines between the cells
    axes.set_xticks(np.arange(0.5, len(columns) - 1), minor=True)
    axes.set_yticks(np.arange(0.5, len(rows) - 1), minor=True)
    axes.grid(which="minor", color="white", lw=2)
    axes.tick_params(which="minor", length=0)
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05)
    bar.set_label(unit, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure, axes


def _checked(values: Any, rows: Sequence[str], columns: Sequence[str], what: str) -> np.ndarray:
    matrix = np.asarray(values, dtype=float)
    if not rows or not columns or matrix.shape != (len(rows), len(columns)):
        raise SpecError(
            f"A heat map of {len(rows)} rows and {len(columns)} columns needs as many {what}, not an array of shape "
            f"{matrix.shape}; give a label for every row and column."
        )
    return matrix


def _write(axes: Axes, row: int, column: int, value: float, reach: float, ends: tuple[float, float] | None) -> None:
    if not math.isfinite(value):
        axes.text(column, row, "–", ha="center", va="center", fontsize=9, color="black")
        return
    colour = "white" if abs(value) > _DARK * reach else "black"
    known = ends is not None and all(map(math.isfinite, ends))
    bold = ends is not None and known and not ends[0] <= 0 <= ends[1]
    # adding 0 makes −0.00 a plain 0.00
    number = f"{round(value, 2) + 0.0:+.2f}" if abs(value) < 100 else f"{value:+,.0f}"
    above = 0.14 if known else 0.0
    weight = "bold" if bold else "normal"
    axes.text(column, row - above, number, ha="center", va="center", fontsize=10, color=colour, weight=weight)
    if ends is not None and known:
        interval = f"[{ends[0]:.2f}, {ends[1]:.2f}]"
        axes.text(column, row + 0.24, interval, ha="center", va="center", fontsize=6.5, color=colour)
