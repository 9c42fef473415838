"""Figures, as PNG bytes, readable at the width of a terminal window or of a README."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import asinh, inf
from typing import TYPE_CHECKING, Any

from contrans.report.drawing import (
    LINES_AND_POINTS,
    as_png,
    colour_of,
    draw_curve,
    draw_test,
    draw_unsteered,
    error_of,
    new_figure,
    steered_arms,
)
from contrans.validation.row_table import MEAN, RowTable
from contrans.validation.wording import spoken

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # nats
_TICK_GAP = 0.065  # of the axis
_ROW = 0.27  # inches of one value in a figure of values below each other
_CONCEPTS = ("#c1440e", "#1f3b73", "#8a6d1d", "#2e7d5b", "#6b4c9a", "#3a8fb7", "#b0457b", "#5b7f2b")
_LINEAR_BELOW = 0.03  # nats; smaller KLs are noise, and a logarithm would give them half of the figure


def accuracy_by_dose(
    dev: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], *, source: str, target: str
) -> bytes:
    """Mean logit accuracy on negatives against dose, one line per arm on dev, test with intervals as points.

    Args:
        dev: rows of the dose curves.
        test: rows of the test split, at the chosen doses.
        source: name of the source model.
        target: name of the target model.

    Returns:
        A PNG.
    """

    def mean(rows: Sequence[Mapping[str, Any]], arm: str) -> list[Mapping[str, Any]]:
        chosen = [r for r in rows if (r["concept"], r["metric"], r["arm"]) == (MEAN, "logit_accuracy", arm)]
        return sorted(chosen, key=lambda r: r["dose"] or 0.0)

    figure, axes = new_figure()
    base = next((r["value"] for r in mean(dev, "unsteered")), None)
    for arm in steered_arms(r["arm"] for r in dev):
        side = _side(arm)
        curve = [(side * r["dose"], r["value"]) for r in mean(dev, arm)]
        if curve:
            draw_curve(axes, arm, _from_the_base(curve, base))
        for r in mean(test, arm):
            draw_test(axes, arm, side * r["dose"], r)
    draw_unsteered(axes, base)
    axes.set(
        xlabel="dose (shift ÷ median norm of the residual stream)",
        ylabel="answers naming the transplanted concept",
        ylim=(-0.02, 1.02),
    )
    return as_png(figure, axes, title=f"{source} → {target}: scenarios of other concepts", legend=LINES_AND_POINTS)


def effect_by_kl(
    rows: Iterable[Mapping[str, Any]] | RowTable,
    *,
    source: str = "",
    target: str = "",
    effect: str | None = None,
    concept: str = MEAN,
    budget: float | None = None,
) -> bytes:
    """Effect against what it costs on generic text: one line per arm on dev, test with intervals as points.

    KL grows to both sides: to the left stand the opposite arm and negative doses, where the effect should fall. The
    scale is linear near 0 and logarithmic beyond.

    Args:
        rows: rows of one protocol, dev and test, with KL rows at their doses; points without a KL are left out.
        source: name of the source model.
        target: name of the target model.
        effect: the metric; by default the protocol's effect.
        concept: the concept; "all" for the mean over them.
        budget: a KL to mark, such as the one that doses were chosen under.

    Returns:
        A PNG.

    Raises:
        ArtifactError: there are no such rows.
    """
    table = rows if isinstance(rows, RowTable) else RowTable.of(rows, effect=effect)
    figure, axes = new_figure()
    unsteered = [*table.curve("unsteered", concept=concept), table.find(concept, "unsteered", table.effect)]
    base = next((r["value"] for r in unsteered if r is not None), None)
    reach = [0.1]
    for arm in steered_arms([*table.arms("dev"), *table.arms()]):
        curve = [(_side(arm, dose) * kl, y) for dose, kl, y in table.curve_by_kl(arm, concept=concept)]
        if curve:
            draw_curve(axes, arm, _from_the_base(curve, base))
        reach += [x for x, _ in curve]
        row = table.find(concept, arm, table.effect)
        cost = None if row is None else table.cost(arm, row["dose"], concept=concept)
        if row is not None and cost is not None:
            x = _side(arm, row["dose"]) * cost["value"]
            draw_test(axes, arm, x, row)
            reach.append(x)
    draw_unsteered(axes, base)
    if budget is not None:
        axes.axvline(budget, color="black", lw=1, ls="-.", alpha=0.6, label=f"KL budget {budget:g}")
    _scale_kl(axes, min(0.0, *reach), max(reach))
    if all(0 <= r["value"] <= 1 for r in table.rows if r["metric"] == table.effect):
        axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel(spoken(table.effect))
    return as_png(figure, axes, title=_title(table, source, target, concept), legend=LINES_AND_POINTS)


def effect_by_arm(
    rows: Iterable[Mapping[str, Any]] | RowTable, *, source: str = "", target: str = "", effect: str | None = None
) -> bytes:
    """The effect of every arm on test with its interval, one below the other, for protocols without dose curves.

    Args:
        rows: rows of one protocol.
        source: name of the source model.
        target: name of the target model.
        effect: the metric; by default the protocol's effect.

    Returns:
        A PNG.

    Raises:
        ArtifactError: there are no such rows.
    """
    table = rows if isinstance(rows, RowTable) else RowTable.of(rows, effect=effect)
    figure, axes = new_figure()
    arms = [*(a for a in table.arms() if a == "unsteered"), *steered_arms(table.arms())]
    labels: list[str] = []
    concepts = table.headlines()
    for concept in concepts:
        for arm in arms:
            row = table.find(concept, arm, table.effect)
            if row is None:
                continue
            error = None if row["low"] is None or row["high"] is None else error_of(row)
            axes.errorbar(
                row["value"], len(labels), xerr=error, color=colour_of(arm), fmt="o", ms=7, capsize=4, mec="white"
            )
            labels.append(spoken(arm) if len(concepts) == 1 else f"{concept}: {spoken(arm)}")
    figure.set_figheight(max(figure.get_figheight(), _ROW * len(labels) + 1))
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(f"{spoken(table.effect)} (test items, 95 % interval)")
    return as_png(figure, axes, title=_title(table, source, target, concepts[0] if len(concepts) == 1 else ""))


def effect_by_window(rows: Iterable[Mapping[str, Any]], *, unit: str = "token", title: str = "") -> bytes:
    """The effect of long texts window by window: a line for each steered arm, or for each concept of several.

    A window in which most texts loop or are word salad is a cross instead of a point. An arm whose texts are all empty
    has no line.

    Args:
        rows: of `contrans.validation.stability_result.StabilityResult.rows`.
        unit: "token" or "turn".
        title: of the figure.

    Returns:
        A PNG.
    """
    rows = list(rows)
    metric = "score_gain" if any(r["metric"] == "score_gain" for r in rows) else "effect"
    lines: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["metric"] == metric and row["arm"] != "unsteered":
            lines.setdefault((row["concept"], row["arm"]), []).append(row)
    broken = {(r["concept"], r["arm"], r["window"]) for r in rows if r["metric"] == "degenerate" and r["value"] > 0.5}
    figure, axes = new_figure()
    several = len({arm for _, arm in lines}) > 1
    concepts = list(dict.fromkeys(concept for concept, _ in lines))
    width = max(row["end"] - row["start"] for line in lines.values() for row in line) if lines else 0
    for i, ((concept, arm), line) in enumerate(lines.items()):
        colour = colour_of(arm) if len(concepts) == 1 else _CONCEPTS[concepts.index(concept) % len(_CONCEPTS)]
        label = ", ".join(filter(None, [concept, spoken(arm) if several or not concept else ""]))
        # beside each other, so that intervals can be told apart
        aside = 0.5 * width * ((i + 0.5) / len(lines) - 0.5)
        x = [(row["start"] + row["end"]) / 2 + aside for row in line]
        axes.plot(x, [row["value"] for row in line], color=colour, lw=1.8, label=label)
        for at, row in zip(x, line, strict=True):
            error = None if row["low"] is None or row["high"] is None else error_of(row)
            mark, size = ("X", 10) if (concept, arm, row["window"]) in broken else ("o", 7)
            axes.errorbar(at, row["value"], error, color=colour, fmt=mark, ms=size, capsize=3, mec="white", zorder=4)
    axes.axhline(0.0, color="black", lw=1, ls=":", label="unsteered")
    axes.set_xlabel(f"{unit}s")
    axes.set_ylabel("score, change against unsteered" if metric == "score_gain" else "effect (residual norms)")
    return as_png(figure, axes, title=title, legend="95 % interval; ✕: degenerate text")


def _side(arm: str, dose: float = 1.0) -> int:
    """1 for the right half of a figure, −1 for the left one, where the transplant is turned round."""
    return (-1 if arm == "opposite" else 1) * (1 if dose > 0 else -1)


def _from_the_base(curve: Sequence[tuple[float, float]], base: float | None) -> list[tuple[float, float]]:
    return sorted([*curve, *([] if base is None else [(0.0, base)])])


def _scale_kl(axes: Axes, low: float, high: float) -> None:
    axes.set_xscale("asinh", linear_width=_LINEAR_BELOW)
    ticks = kl_ticks(1.3 * low, 1.3 * high)
    axes.set_xticks(ticks, [f"{abs(t):g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlim(1.3 * low - _LINEAR_BELOW / 10, 1.3 * high)
    sides = "; left: −dose" if low < 0 else ""
    axes.set_xlabel(f"KL to the unsteered model on generic text (nats per token{sides})")


def kl_ticks(low: float, high: float) -> list[float]:
    """Ticks from a KL on the left (negative, or 0) to one on the right, so far apart that their labels do not touch."""
    span = asinh(high / _LINEAR_BELOW) - asinh(low / _LINEAR_BELOW)
    kept = [0.0]
    for side, end in ((1, high), (-1, -low)):
        last = inf
        for tick in (t for t in reversed(_TICKS) if t <= end):
            at = asinh(tick / _LINEAR_BELOW)
            if min(last - at, at) >= _TICK_GAP * span:
                kept.append(side * tick)
                last = at
    return sorted(kept)


def _title(table: RowTable, source: str, target: str, concept: str) -> str:
    about = "mean over concepts" if concept == MEAN else concept
    models = f"{source} → {target}: " if source and target else ""
    return models + ", ".join(filter(None, [spoken(table.protocol), about]))
