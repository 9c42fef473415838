"""What a validation found, drawn with characters: the effect of each arm, and what it costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import asinh
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from contrans.report.drawing import steered_arms
from contrans.report.figures import kl_ticks
from contrans.validation.row_table import RowTable
from contrans.validation.significance import comparisons
from contrans.validation.wording import shown, spoken
from flows.cli.plots import Curve, axis, curves, interval_line, visible, with_axes
from registry.browse.charts import ticks

ARM_STYLES = {
    "transplanted": "bold red",
    "own": "bright_blue",
    "paper": "yellow",
    "prompt": "green",
    "opposite": "magenta",
    "shuffled_map": "cyan",
    "wrong_concept": "bright_magenta",
    "random": "bright_black",
}
_SIGNS = {"transplanted": "T", "own": "O", "paper": "P", "prompt": "A", "opposite": "−"}
_WIDEST, _HEIGHT = 58, 11  # of a plot of curves, in characters
_BESIDE = 110  # columns of a terminal from which on two plots stand beside each other
_LINEAR_BELOW = 0.03  # nats; see `contrans.report.figures`


def effect_by_arm(table: RowTable, concept: str, *, width: int) -> Table:
    """The effect of each arm on test as a dot with its interval, one below the other, on a common scale.

    Args:
        table: Rows of one protocol.
        concept: Whose rows.
        width: Columns that there are for all of it.
    """
    arms = [*(a for a in table.arms() if a == "unsteered"), *steered_arms(table.arms())]
    rows = {arm: row for arm in arms if (row := table.find(concept, arm, table.effect)) is not None}
    judged = {arm: next((c for c in comparisons(table, arm) if c.concept == concept), None) for arm in rows}
    words = {arm: "" if c is None or arm == "unsteered" else c.words for arm, c in judged.items()}
    numbers = [v for row in rows.values() for v in (row["value"], row["low"], row["high"]) if v is not None]
    at = ticks(min(0.0, *numbers), max(numbers))
    ends = (at[0], at[-1])
    texts = {arm: shown(row["value"], row["low"], row["high"]) for arm, row in rows.items()}
    taken = max(len(spoken(a)) for a in rows) + max(map(len, texts.values())) + max(map(len, words.values())) + 6
    room = max(16, min(_WIDEST, width - taken))
    # The name as `--where` takes it.
    grid = Table.grid(padding=(0, 2))
    grid.title, grid.title_justify, grid.title_style = Text(visible(f"{table.effect} by arm, on test")), "left", "bold"
    for i in range(4):
        grid.add_column(no_wrap=i < 3)
    for arm, row in rows.items():
        line = interval_line(row["value"], row["low"], row["high"], ends=ends, width=room)
        style = ARM_STYLES.get(arm, "")
        grid.add_row(
            Text(visible(spoken(arm)), style=style), Text(line, style=style), Text(texts[arm]), Text(words[arm], "dim")
        )
    grid.add_row("", Text(axis(at, ends=ends, width=room), style="dim"), "", "")
    return grid


def effect_by_cost(table: RowTable, concept: str, *, width: int) -> Iterator[RenderableType]:
    """The effect against dose and against KL, a line for each arm, with a legend; nothing where there are no curves.

    Args:
        table: Rows of one protocol.
        concept: Whose rows.
        width: Columns that there are; where they suffice, the two stand beside each other.
    """
    plots = list(_curve_plots(table, concept, width))
    if not plots:
        return
    grid = Table.grid(padding=(0, 3))
    for row in [plots] if width >= _BESIDE else [[plot] for plot in plots]:
        grid.add_row(*row)
    yield ""
    yield grid
    yield _legend(table)


def _curve_plots(table: RowTable, concept: str, width: int) -> Iterator[Text]:
    arms = steered_arms([*table.arms("dev"), *table.arms()])
    base = table.find(concept, "unsteered", table.effect)
    height = None if base is None else base["value"]
    by_dose, by_kl = [], []
    for arm in arms:
        test = table.find(concept, arm, table.effect)
        cost = None if test is None else table.cost(arm, test["dose"], concept=concept)
        line = [(r["dose"], r["value"]) for r in table.curve(arm, concept=concept) if r["dose"] is not None]
        by_dose.append(Curve(arm, _sign(arm), line, _marks(test, None if test is None else test["dose"])))
        # What turns the transplant round costs as much again: its points would lie among the others.
        paid = sorted((kl, value) for dose, kl, value in table.curve_by_kl(arm, concept=concept) if dose > 0)
        by_kl.append(Curve(arm, _sign(arm), paid, _marks(test, None if cost is None else cost["value"])))
    label = f"{spoken(table.effect)} against"
    room = min(_WIDEST, width // 2 - 8 if width >= _BESIDE else width - 10)
    yield from _plot(f"{label} dose (residual norms)", by_dose, room, height)
    yield from _plot(f"{label} KL (nats per token)", by_kl, room, height, bend=lambda x: asinh(x / _LINEAR_BELOW))


def _plot(
    title: str, found: Sequence[Curve], width: int, base: float | None, *, bend: Callable[[float], float] | None = None
) -> Iterator[Text]:
    if not any(len(curve.points) > 1 for curve in found):
        return
    xs = [x for c in found for x, *_ in (*c.points, *c.marks)]
    ys = [y for c in found for _, y in c.points] + [v for c in found for m in c.marks for v in m[1:] if v is not None]
    y_ticks = ticks(min(0.0, *ys), max([*ys, base or 0.0]))
    low, high = min(0.0, *xs), max(xs)
    x_ticks = [t for t in (kl_ticks(low, high) if bend else ticks(low, high)) if low <= t <= high]
    bent = bend or float
    x_ends, y_ends = (bent(low), bent(high)), (y_ticks[0], y_ticks[-1])
    moved = [
        Curve(c.name, c.sign, [(bent(x), y) for x, y in c.points], [(bent(x), *more) for x, *more in c.marks])  # type: ignore[arg-type]  the rest of a mark
        for c in found
    ]
    lines = curves(
        moved, width=width, height=_HEIGHT, x_ends=x_ends, y_ends=y_ends, base=base, style_of=lambda a: _style(a)
    )
    drawn = with_axes(lines, x_ticks=x_ticks, y_ticks=y_ticks, x_ends=x_ends, y_ends=y_ends, bend=bent)
    yield Text.assemble((f"{visible(title)}\n", "bold"), drawn)


def _legend(table: RowTable) -> Text:
    out = Text("lines: dev, ● │: test with its interval, ┈ unsteered\n", style="dim")
    for arm in steered_arms([*table.arms("dev"), *table.arms()]):
        out.append(_sign(arm), _style(arm)).append(f" {visible(spoken(arm))}  ")
    return out


def _marks(row: Mapping[str, Any] | None, x: float | None) -> list[tuple[float, float, float | None, float | None]]:
    return [] if row is None or x is None else [(x, row["value"], row["low"], row["high"])]


def _sign(arm: str) -> str:
    return _SIGNS.get(arm, arm[0].upper())


def _style(arm: str) -> str:
    return ARM_STYLES.get(arm, "")
