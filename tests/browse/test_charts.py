"""Pure parts as tables: ticks, charts, graphs' columns, heat, cosines and planes against NumPy."""

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest

from registry.browse.charts import Series, heat, line_chart, scatter, sparkline, ticks
from registry.browse.differences import difference
from registry.browse.graph import Edge, Graph, Node, draw
from registry.browse.vectors import cosine, cosines, plane
from registry.records import Result

HOSTILE = '<script>"&'


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 0.9, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.3, 0.3, [-0.4, -0.2, 0.0, 0.2, 0.4]),
        (0.0, 0.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 47.0, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, found: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(found)


def test_chart_is_sound_escaped_and_to_scale() -> None:
    series = [
        Series("transplanted", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)], [(0.5, 0.5, 0.4, 0.6)]),
        Series(HOSTILE, [(0.1, 0.2)]),
    ]
    chart = ElementTree.fromstring(str(line_chart(HOSTILE, series, x_label=HOSTILE, y_label="y", base=0.1)))
    title = chart.find("title")
    assert title is not None
    assert title.text == HOSTILE
    assert chart.get("aria-labelledby") == title.get("id")
    line = chart.find("g/polyline")
    assert line is not None
    points = [tuple(map(float, pair.split(","))) for pair in (line.get("points") or "").split()]
    steps = [(x2 - x1, y2 - y1) for (x1, y1), (x2, y2) in pairwise(points)]
    assert steps[0] == pytest.approx(steps[1], abs=0.11)
    assert steps[0][0] > 0 > steps[0][1]
    circle = chart.find("g/circle")
    assert circle is not None
    assert (float(circle.get("cx") or 0), float(circle.get("cy") or 0)) == pytest.approx(points[1])
    assert "arm-other" in {c for g in chart.findall("g") for c in (g.get("class") or "").split()}


def test_kl_is_drawn_linear_near_zero_and_logarithmic_beyond() -> None:
    curve = [(x, 0.5) for x in (0.0, 0.001, 0.002, 1.0, 10.0, 100.0)]
    chart = ElementTree.fromstring(str(line_chart("t", [Series("own", curve)], x_label="", y_label="", kl=True)))
    line = chart.find("g/polyline")
    assert line is not None
    x = [float(pair.split(",")[0]) for pair in (line.get("points") or "").split()]
    assert x[2] - x[1] == pytest.approx(x[1] - x[0], abs=0.15)
    assert x[5] - x[4] == pytest.approx(x[4] - x[3], rel=0.01)


def test_what_is_empty_draws_nothing() -> None:
    assert line_chart("t", [Series("own")], x_label="", y_label="") == ""
    assert sparkline([], "t") == ""
    assert scatter("t", []) == ""
    assert "<circle" in sparkline([0.5], "t")


@pytest.mark.parametrize(
    ("value", "sign", "level"),
    [
        (None, "none", "0"),
        (0.0, "plus", "0"),
        (0.5, "plus", "4"),
        (1.0, "plus", "9"),
        (7.0, "plus", "9"),
        (-1.0, "minus", "9"),
    ],
)
def test_heat(value: float | None, sign: str, level: str) -> None:
    assert heat(value) == {"sign": sign, "level": level}


def test_graph_goes_from_left_to_right_and_is_escaped() -> None:
    nodes = (
        Node("v", "validation", "v", "1", "/v"),
        Node("t", "text_set", HOSTILE, "1", "/t"),
        Node("m", "map", "m", "1", "/m", root=True),
        Node("p", "publication", "p", "1", ""),
    )
    edges = (Edge("t", "m", HOSTILE), Edge("m", "v", "map"), Edge("v", "p", "published"))
    drawn = ElementTree.fromstring(str(draw(Graph(nodes, edges, False))))
    x = {
        (link.get("href") or ""): float(rect.get("x") or 0)
        for link in drawn.findall("a")
        if (rect := link.find("rect")) is not None
    }
    assert x["/t"] < x["/m"] < x["/v"]
    assert len(drawn.findall("path")) == 3
    assert [link.get("aria-current") for link in drawn.findall("a")] == [None, None, "true"]
    assert drawn.find("g") is not None  # a publication leads nowhere


def test_difference_is_the_square_and_add_interval() -> None:
    # Newcombe (1998), table II: 56/70 against 48/80, method 10 without correction: .0524 to .3339
    first = Result("c", "p", "test", "a", "m", None, 48 / 80, 0.4904, 0.7004)
    other = Result("c", "p", "test", "a", "m", None, 56 / 70, 0.6918, 0.8769)
    assert difference(first, other) == pytest.approx((0.0524, 0.3339), abs=5e-4)
    assert difference(first, Result("c", "p", "test", "a", "m", None, 0.5)) is None


def test_cosines_and_plane_agree_with_numpy() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(6, 9))
    unit = directions / np.linalg.norm(directions, axis=1)[:, None]
    assert cosines(directions) == pytest.approx(unit @ unit.T)
    assert cosine(directions[0], directions[1]) == pytest.approx(float(unit[0] @ unit[1]))
    assert np.isnan(cosine(None, directions[0]))
    at, shares = plane(directions)
    values, vectors = np.linalg.eigh(np.cov(unit.T, bias=True))
    assert shares == pytest.approx((values[-1] / values.sum(), values[-2] / values.sum()))
    projected = (unit - unit.mean(0)) @ vectors[:, [-1, -2]]
    assert np.abs(at) == pytest.approx(np.abs(projected))
    assert plane(np.ones((1, 4)))[1] == (0.0, 0.0)
    assert cosines(np.zeros((2, 3))) == pytest.approx(np.zeros((2, 2)))
