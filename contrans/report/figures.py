"""Figures, as PNG bytes, readable at the width of a terminal window or of a README."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS = {
    "transplanted": "#c1440e",
    "own": "#1f3b73",
    "paper": "#8a6d1d",
    "shuffled_map": "#7f7f7f",
    "wrong_concept": "#a58bb8",
    "random": "#b5b5b5",
}
_NAMES = {
    "transplanted": "transplanted (source's vector, mapped)",
    "own": "own (target's vector: the reference)",
    "paper": "paper (min-norm map)",
    "shuffled_map": "shuffled map",
    "wrong_concept": "wrong concept",
    "random": "random direction",
}


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def mean(rows: Sequence[Mapping[str, Any]], arm: str) -> list[Mapping[str, Any]]:
        chosen = [r for r in rows if (r["concept"], r["metric"], r["arm"]) == ("all", "logit_accuracy", arm)]
        return sorted(chosen, key=lambda r: r["dose"] or 0.0)

    figure = Figure(figsize=(8, 4.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    base = mean(dev, "unsteered")
    start = [(0.0, base[0]["value"])] if base else []
    for arm, colour in COLOURS.items():
        curve = [*start, *((r["dose"], r["value"]) for r in mean(dev, arm))]
        if len(curve) <= len(start):
            continue
        bold = arm in ("transplanted", "own")
        axes.plot(
            *zip(*curve, strict=True),
            color=colour,
            lw=2.2 if bold else 1.4,
            ls="-" if bold else "--",
            marker=".",
            label=_NAMES[arm],
            zorder=3 if bold else 2,
        )
        for r in mean(test, arm):
            if r["low"] is not None:
                error = [[r["value"] - r["low"]], [r["high"] - r["value"]]]
                axes.errorbar(
                    r["dose"],
                    r["value"],
                    error,
                    color=colour,
                    fmt="o",
                    ms=7,
                    capsize=4,
                    mec="white",
                    zorder=5,
                )
    if base:
        axes.axhline(base[0]["value"], color="black", lw=1, ls=":", label="unsteered")
    axes.set(
        xlabel="dose (shift ÷ median norm of the residual stream)",
        ylabel="answers naming the transplanted concept",
        ylim=(-0.02, 1.02),
    )
    axes.set_title(f"{source} → {target}: scenarios of other concepts", fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(
        frameon=False,
        fontsize=8.5,
        title="lines: dev · points: test, 95 % interval",
        title_fontsize=8.5,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
