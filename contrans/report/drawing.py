"""What all figures share: their size, the colours of arms, how lines and test points look."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contrans.validation.wording import spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "transplanted": "#c1440e",
    "own": "#1f3b73",
    "paper": "#8a6d1d",
    "prompt": "#2e7d5b",
    "opposite": "#e2a07f",
    "shuffled_map": "#7f7f7f",
    "wrong_concept": "#a58bb8",
    "random": "#b5b5b5",
}
"""Colours of arms, in the order of the legend."""
LINES_AND_POINTS = "lines: dev · points: test, 95 % interval"
"""Title of the legend of figures with dose curves."""

_OTHERS = ("#3a8fb7", "#6b4c9a", "#b0457b", "#5b7f2b")
_LABELS = {
    "transplanted": "transplanted (source's vector, mapped)",
    "own": "own (target's vector: the reference)",
    "paper": "paper (min-norm map)",
    "prompt": "prompt (asked for in words)",
    "opposite": "opposite (−dose)",
    "shuffled_map": "shuffled map",
    "wrong_concept": "wrong concept",
    "random": "random direction",
}


def new_figure() -> tuple[Figure, Axes]:
    """An empty figure of the one size, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def as_png(figure: Figure, axes: Axes, *, title: str, legend: str | None = None) -> bytes:
    """The figure with its title, and with a legend at the right where that has a title."""
    axes.set_title(title, fontsize=11, loc="left")
    if legend is not None:
        axes.legend(
            frameon=False,
            fontsize=8.5,
            title=legend,
            title_fontsize=8.5,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def steered_arms(found: Iterable[str]) -> list[str]:
    """Steered arms in the order of `COLOURS`, then others as they come."""
    there = dict.fromkeys(a for a in found if a != "unsteered")
    return [*(a for a in COLOURS if a in there), *(a for a in there if a not in COLOURS)]


def colour_of(arm: str) -> str:
    """The colour of an arm, the same in every figure."""
    if arm == "unsteered":
        return "black"
    return COLOURS.get(arm) or _OTHERS[sum(arm.encode()) % len(_OTHERS)]


def draw_curve(axes: Axes, arm: str, points: Sequence[tuple[float, float]]) -> None:
    """An arm's line through its dev points."""
    bold = arm in ("transplanted", "own")
    axes.plot(
        *zip(*points, strict=True),
        color=colour_of(arm),
        lw=2.2 if bold else 1.4,
        ls="-" if bold else "--",
        marker=".",
        label=_LABELS.get(arm, spoken(arm)),
        zorder=3 if bold else 2,
    )


def draw_test(axes: Axes, arm: str, x: float, row: Mapping[str, Any]) -> None:
    """An arm's test value with its interval, where it has one."""
    if row["low"] is not None and row["high"] is not None:
        axes.errorbar(
            x, row["value"], error_of(row), color=colour_of(arm), fmt="o", ms=7, capsize=4, mec="white", zorder=5
        )


def error_of(row: Mapping[str, Any]) -> list[list[float]]:
    """The interval of a row as matplotlib wants it: what is below and above the value."""
    return [[max(row["value"] - row["low"], 0.0)], [max(row["high"] - row["value"], 0.0)]]


def draw_unsteered(axes: Axes, value: float | None) -> None:
    """A line at the height of the unsteered model."""
    if value is not None:
        axes.axhline(value, color="black", lw=1, ls=":", label="unsteered")
