"""Charts as SVG, drawn on the server: a title that is read aloud, colours from the stylesheet, no script."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import asinh, ceil, floor, log10

from markupsafe import Markup, escape

from contrans.report.drawing import COLOURS
from contrans.report.figures import kl_ticks

Point = tuple[float, float]
_WIDTH, _HEIGHT = 640, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 48
_LINEAR_BELOW = 0.03  # nats; see `contrans.report.figures`
_SPARK_WIDTH, _SPARK_HEIGHT = 96, 24
_ids = count(1)


@dataclass(frozen=True)
class Series:
    """One arm in a chart: a line through `curve`, and `marks` of x, value, low and high."""

    arm: str
    curve: Sequence[Point] = ()
    marks: Sequence[tuple[float, float, float | None, float | None]] = field(default=())


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    base: float | None = None,
    kl: bool = False,
) -> Markup:
    """Lines on dev and points with intervals on test, one colour per arm.

    Args:
        title: What it shows, in a sentence; also for those who cannot see it.
        series: The arms.
        x_label: Below.
        y_label: At the left.
        base: Height of a dotted line: the unsteered model.
        kl: Whether x is a KL, whose axis is linear near 0 and logarithmic beyond.

    Returns:
        An SVG; empty where there is nothing to draw.
    """
    xs = [x for s in series for x, *_ in (*s.curve, *s.marks)]
    ys = [y for s in series for _, y in s.curve]
    ys += [y for s in series for _, *values in s.marks for y in values if y is not None]
    if not xs or not ys:
        return Markup()
    bend: Callable[[float], float] = (lambda x: asinh(x / _LINEAR_BELOW)) if kl else lambda x: x
    low_x, high_x = min(0.0, *xs), max(xs) * 1.05 or 1.0
    y_ticks = ticks(min(0.0, *ys), max([*ys, base or 0.0]) or 1.0)
    low_y, high_y = y_ticks[0], y_ticks[-1]
    x_ticks = kl_ticks(low_x, high_x) if kl else ticks(low_x, high_x)
    x_ticks = [t for t in x_ticks if low_x <= t <= high_x]

    def across(x: float) -> float:
        return _LEFT + (bend(x) - bend(low_x)) / (bend(high_x) - bend(low_x)) * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - low_y) / (high_y - low_y) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_axes(across, up, x_ticks, y_ticks, x_label, y_label)]
    if base is not None:
        y = up(base)
        parts.append(f'<line class="base" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for s in series:
        parts.append(f'<g class="arm {arm_class(s.arm)}">')
        if s.curve:
            points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in s.curve)
            parts.append(f'<polyline points="{points}"/>')
        for x, y, low, high in s.marks:
            if low is not None and high is not None:
                parts.append(
                    f'<line x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{up(low):.1f}" y2="{up(high):.1f}"/>'
                )
            parts.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="5"/>')
        parts.append("</g>")
    return svg(title, "".join(parts), _WIDTH, _HEIGHT)


def sparkline(values: Sequence[float], title: str) -> Markup:
    """A small line without axes, from 0 to the highest value or 1."""
    if not values:
        return Markup()
    low, high = min(0.0, *values), max(1.0, *values)
    step = (_SPARK_WIDTH - 8) / max(len(values) - 1, 1)
    at = [
        (4 + i * step, _SPARK_HEIGHT - 4 - (v - low) / (high - low) * (_SPARK_HEIGHT - 8)) for i, v in enumerate(values)
    ]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    body = f'<polyline points="{points}"/><circle cx="{at[-1][0]:.1f}" cy="{at[-1][1]:.1f}" r="3"/>'
    return svg(title, body, _SPARK_WIDTH, _SPARK_HEIGHT, "spark arm arm-transplanted")


def scatter(title: str, points: Sequence[tuple[float, float, str, str]]) -> Markup:
    """Labelled points (x, y, label, link), on axes of the same unit."""
    if not points:
        return Markup()
    reach = max(max(abs(x), abs(y)) for x, y, *_ in points) or 1.0
    half = _HEIGHT / 2

    def across(x: float) -> float:
        return _WIDTH / 2 + x / reach * (_WIDTH / 2 - 110)

    def up(y: float) -> float:
        return half - y / reach * (half - 24)

    parts = [
        f'<line class="grid" x1="0" x2="{_WIDTH}" y1="{half}" y2="{half}"/>',
        f'<line class="grid" x1="{_WIDTH / 2}" x2="{_WIDTH / 2}" y1="0" y2="{_HEIGHT}"/>',
    ]
    for x, y, label, link in points:
        parts.append(
            f'<a href="{escape(link)}"><circle class="dot" cx="{across(x):.1f}" cy="{up(y):.1f}" r="5"/>'
            f'<text x="{across(x) + 8:.1f}" y="{up(y) + 4:.1f}">{escape(label)}</text></a>'
        )
    return svg(title, "".join(parts), _WIDTH, _HEIGHT, group=True)


def svg(title: str, body: str, width: float, height: float, classes: str = "chart", *, group: bool = False) -> Markup:
    """An SVG of a body of markup; an image with a title, or a group whose links can be reached."""
    label = f"chart-{next(_ids)}"
    role = "group" if group else "img"
    return Markup(
        f'<svg class="{classes}" role="{role}" aria-labelledby="{label}" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}"><title id="{label}">{escape(title)}</title>{body}</svg>'
    )


def arm_class(arm: str) -> str:
    """The class that colours an arm in the stylesheet."""
    return f"arm-{arm}" if arm in COLOURS or arm == "unsteered" else "arm-other"


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers that enclose a range."""
    if high <= low:
        high = low + 1.0
    step = 10.0 ** floor(log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
    return [round(i * step, 10) for i in range(floor(low / step), ceil(high / step - 1e-9) + 1)]


def heat(value: float | None, *, low: float = 0.0, high: float = 1.0) -> Mapping[str, str]:
    """How a cell of a heat map is coloured: the class of its sign, and of its strength from 0 to 9."""
    if value is None:
        return {"sign": "none", "level": "0"}
    share = (value - low) / (high - low) if value >= 0 else -value / max(abs(low), high)
    return {"sign": "minus" if value < 0 else "plus", "level": str(max(0, min(9, round(9 * share))))}


def _axes(
    across: Callable[[float], float],
    up: Callable[[float], float],
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str,
) -> str:
    parts = []
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}"/>')
        parts.append(f'<text class="end" x="{_LEFT - 6}" y="{up(y) + 4:.1f}">{y:g}</text>')
    for x in x_ticks:
        parts.append(f'<text class="middle" x="{across(x):.1f}" y="{_HEIGHT - _BOTTOM + 16}">{abs(x):g}</text>')
    parts.append(f'<text class="middle" x="{_WIDTH / 2}" y="{_HEIGHT - 8}">{escape(x_label)}</text>')
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(
        f'<text class="middle" transform="rotate(-90 12 {middle:.0f})" x="12" y="{middle:.0f}">{escape(y_label)}</text>'
    )
    return "".join(parts)
