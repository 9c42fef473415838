"""What a terminal can draw: sparklines, intervals on a line, and curves of braille dots with their axes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.text import Text

_BARS = "▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # bits of a braille sign by column, and row from the top
_EMPTY = 0x2800

Ends = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A line through points, and points with intervals.

    Attributes:
        name: What it shows; what its colour is chosen by.
        sign: One character at its right end.
        points: x and y of the line, in the order of x.
        marks: x, y and the ends of y's interval, None where there is none.
    """

    name: str
    sign: str
    points: Sequence[tuple[float, float]] = ()
    marks: Sequence[tuple[float, float, float | None, float | None]] = ()


def visible(text: str) -> str:
    """A text that cannot steer the terminal: control characters other than tab and line break are replaced."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def sparkline(values: Iterable[float], *, ends: Ends = (0.0, 1.0)) -> str:
    """A bar of eight heights for each value; what lies beyond the ends is as high as they are."""
    return "".join(_BARS[_at(value, ends, len(_BARS))] for value in values)


def interval_line(value: float, low: float | None, high: float | None, *, ends: Ends, width: int) -> str:
    """A value as a dot with its interval around it, `├──●──┤`, on a line as wide as told from one end to the other."""
    signs = [" "] * width
    if low is not None and high is not None:
        first, last = _at(low, ends, width), _at(high, ends, width)
        signs[first : last + 1] = "─" * (last - first + 1)
        signs[first], signs[last] = "├", "┤"
    signs[_at(value, ends, width)] = "●"
    return "".join(signs)


def axis(ticks: Sequence[float], *, ends: Ends, width: int, bend: Callable[[float], float] = float) -> str:
    """Numbers at their places below a plot; those that would touch the one before are left out."""
    line = ""
    for tick in ticks:
        label = f"{tick:g}"
        start = min(max(_at(bend(tick), ends, width) - len(label) // 2, 0), max(width - len(label), 0))
        if not line or start > len(line):
            line = line.ljust(start) + label
    return line.ljust(width)


def curves(
    found: Sequence[Curve],
    *,
    width: int,
    height: int,
    x_ends: Ends,
    y_ends: Ends,
    base: float | None = None,
    style_of: Callable[[str], str] = lambda name: "",
) -> list[Text]:
    """Curves on a field of characters, the first curve above the others.

    Args:
        found: The curves.
        width: Characters.
        height: Lines.
        x_ends: What is at the left and right edge.
        y_ends: What is at the lower and upper edge.
        base: Height of a dotted line.
        style_of: Style of a curve by its name.

    Returns:
        The lines from the top.
    """
    dots = [[0] * width for _ in range(height)]
    cells: dict[tuple[int, int], tuple[str, str]] = {}
    if base is not None:
        row = _line(base, y_ends, height)
        cells |= {(row, column): ("┈", "dim") for column in range(width)}
    for curve in reversed(found):
        style = style_of(curve.name)
        spots = [(_at(x, x_ends, 2 * width), _row(y, y_ends, 4 * height)) for x, y in curve.points]
        for column, row in _joined(spots):
            dots[row // 4][column // 2] |= _DOTS[column % 2][row % 4]
            cells[row // 4, column // 2] = (chr(_EMPTY + dots[row // 4][column // 2]), style)
    for curve in reversed(found):
        style = style_of(curve.name)
        for x, y, low, high in curve.marks:
            column = _at(x, x_ends, 2 * width) // 2
            if low is not None and high is not None:
                for row in range(_line(high, y_ends, height), _line(low, y_ends, height) + 1):
                    cells[row, column] = ("│", style)
            cells[_line(y, y_ends, height), column] = ("●", style)
        if curve.points:
            x, y = curve.points[-1]
            cells[_line(y, y_ends, height), _at(x, x_ends, 2 * width) // 2] = (curve.sign, style)
    return [Text.assemble(*(cells.get((row, column), (" ", "")) for column in range(width))) for row in range(height)]


def with_axes(
    lines: Sequence[Text],
    *,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_ends: Ends,
    y_ends: Ends,
    bend: Callable[[float], float] = float,
) -> Text:
    """Lines of `curves` with numbers at the left and below.

    Args:
        lines: What `curves` gave.
        x_ticks: Numbers below.
        y_ticks: Numbers at the left.
        x_ends: What is at the left and right edge, as `curves` was told.
        y_ends: What is at the lower and upper edge.
        bend: From a number below to where it is between the `x_ends`.
    """
    labels = {_line(tick, y_ends, len(lines)): f"{tick:g}" for tick in y_ticks}
    left = max(map(len, labels.values()), default=0)
    width = len(lines[0])
    out = Text()
    for i, line in enumerate(lines):
        mark = "┤" if i in labels else "│"
        out.append(f"{labels.get(i, ''):>{left}} {mark}", "dim").append_text(line).append("\n")
    out.append(f"{'':>{left}} └{'─' * width}\n", "dim")
    return out.append(f"{'':>{left}}  {axis(x_ticks, ends=x_ends, width=width, bend=bend)}", "dim")


def _at(value: float, ends: Ends, count: int) -> int:
    """Which of so many places from one end to the other a value is at."""
    low, high = ends
    share = (value - low) / (high - low) if high > low else 0.5
    return round(min(max(share, 0.0), 1.0) * (count - 1))


def _row(value: float, ends: Ends, count: int) -> int:
    return count - 1 - _at(value, ends, count)


def _line(value: float, ends: Ends, height: int) -> int:
    """The line of characters that a dot at a value is in, so that signs and dots lie at the same height."""
    return _row(value, ends, 4 * height) // 4


def _joined(spots: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """The spots, and those on the straight lines between them."""
    yield from spots[:1]
    for (x, y), (x2, y2) in pairwise(spots):
        steps = max(abs(x2 - x), abs(y2 - y), 1)
        yield from ((x + round((x2 - x) * i / steps), y + round((y2 - y) * i / steps)) for i in range(1, steps + 1))
