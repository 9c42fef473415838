"""Plots of characters, sign for sign."""

from collections.abc import Iterable
from math import asinh

import pytest
from rich.console import Console, RenderableType

from contrans.validation.row_table import RowTable
from flows.cli.evidence_plots import effect_by_arm, effect_by_cost
from flows.cli.plots import Curve, axis, curves, interval_line, sparkline, visible, with_axes
from tests.results import effect, emotion_rows

UNIT = (0.0, 1.0)


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], ""), ([0, 0.5, 1], "▁▅█"), ([-3, 0.14, 7], "▁▂█"), ([1] * 3, "███")],
)
def test_sparkline(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn


@pytest.mark.parametrize(
    ("value", "low", "high", "drawn"),
    [
        (0.5, 0.25, 0.75, "  ├─●─┤  "),
        (0.5, None, None, "    ●    "),
        (0.0, 0.0, 0.5, "●───┤    "),
        (0.5, 0.5, 0.5, "    ●    "),
        (1.0, -1.0, 2.0, "├───────●"),
    ],
)
def test_interval_line(value: float, low: float | None, high: float | None, drawn: str) -> None:
    assert interval_line(value, low, high, ends=UNIT, width=9) == drawn


@pytest.mark.parametrize(
    ("ticks", "width", "drawn"),
    [
        ([0, 0.5, 1], 9, "0  0.5  1"),
        ([0, 0.25, 0.5, 0.75, 1], 9, "0  0.5  1"),  # labels that would touch are left out
        ([], 3, "   "),
    ],
)
def test_axis(ticks: list[float], width: int, drawn: str) -> None:
    assert axis(ticks, ends=UNIT, width=width) == drawn


def test_axis_that_is_bent() -> None:
    drawn = axis([0, 0.1, 1], ends=(0.0, asinh(10)), width=31, bend=lambda x: asinh(x / 0.1))
    assert drawn.index("0.1") == round(30 * asinh(1) / asinh(10)) - 1
    assert drawn.endswith("1")


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        ([Curve("a", "A", [(0, 0), (1, 1)])], ["⡠A"]),
        ([Curve("a", "A", [(0, 1), (1, 0)])], ["⠑A"]),
        ([Curve("a", "A", marks=[(0, 0.5, None, None)])], ["● "]),
        ([Curve("a", "A", [(1, 1)]), Curve("b", "B", [(1, 1)])], [" A"]),
        ([], ["  "]),
    ],
)
def test_curves(found: list[Curve], lines: list[str]) -> None:
    drawn = curves(found, width=2, height=1, x_ends=UNIT, y_ends=UNIT)
    assert [line.plain for line in drawn] == lines


def test_curves_have_intervals_a_base_and_axes() -> None:
    found = [Curve("a", "A", [(0, 0), (0.5, 0)], [(1, 0.5, 0.0, 1.0)])]
    lines = curves(
        found, width=5, height=3, x_ends=UNIT, y_ends=UNIT, base=1.0, style_of=lambda name: "red" if name == "a" else ""
    )
    assert [line.plain for line in lines] == ["┈┈┈┈│", "    ●", "⣀⣀A │"]
    assert {span.style for span in lines[2].spans} >= {"red"}
    drawn = with_axes(lines, x_ticks=[0, 1], y_ticks=[0, 1], x_ends=UNIT, y_ends=UNIT)
    assert drawn.plain.split("\n") == ["1 ┤┈┈┈┈│", "  │    ●", "0 ┤⣀⣀A │", "  └─────", "   0   1"]


def test_a_text_cannot_steer_the_terminal() -> None:
    assert visible("a\x1b[2Jb\x07\tc\nd\r") == "a�[2Jb�\tc\nd�"


def printed(parts: Iterable[RenderableType], width: int) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_plots_of_a_validation_fit_and_show_every_arm(width: int) -> None:
    table = RowTable.of(emotion_rows())
    lines = printed([effect_by_arm(table, "all", width=width)], width)
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("logit_accuracy by arm")
    arms = {line.split("  ")[0]: line for line in lines[1:-1]}
    assert {"unsteered", "transplanted", "own", "shuffled map", "random"} <= arms.keys()
    dots = {arm: line.index("●") for arm, line in arms.items()}
    heights = {arm: effect(arm.replace(" ", "_"), 0.2) for arm in arms if arm != "unsteered"}
    assert sorted(heights, key=lambda arm: dots[arm]) == sorted(heights, key=lambda arm: heights[arm])
    lines = printed(effect_by_cost(table, "all", width=width), width)
    assert max(map(len, lines)) <= width
    assert sum("against KL" in line for line in lines) == 1
    beside = any("against dose" in line and "against KL" in line for line in lines)
    assert beside == (width == 120)
    assert lines[-1].startswith("T transplanted  O own")


def test_without_curves_there_is_no_plot() -> None:
    table = RowTable.of([row for row in emotion_rows() if row["split"] != "dev"])
    assert list(effect_by_cost(table, "all", width=80)) == []
