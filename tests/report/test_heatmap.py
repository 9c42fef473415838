"""Cells, colours and labels are read back from the axes before they become pixels."""

import io

import numpy as np
import pytest
from matplotlib.image import imread

from contrans.errors import SpecError
from contrans.report.heatmap import draw_heatmap, heatmap

ROWS, COLUMNS = ["joy", "fear"], ["joy", "fear", "a rather long name"]
VALUES = np.array([[0.8, -0.001, -0.4], [0.05, 0.5, np.nan]])
LOW, HIGH = VALUES - 0.1, VALUES + 0.1
WORDS = {"title": "cross-effects", "unit": "change of accuracy"}


def written(axes) -> dict[tuple[int, int], list]:
    """Texts of every cell, the number first."""
    cells: dict[tuple[int, int], list] = {}
    for text in axes.texts:
        x, y = text.get_position()
        cells.setdefault((round(y), round(x)), []).append(text)
    return cells


def test_colours_are_centred_on_zero():
    _, axes = draw_heatmap(VALUES, ROWS, COLUMNS, **WORDS)
    [image] = axes.images
    assert image.get_clim() == (-0.8, 0.8)
    np.testing.assert_array_equal(image.get_array().filled(np.nan), VALUES)
    # no change is white, more is red, less is blue
    assert image.to_rgba(0.0)[:3] == pytest.approx((0.97, 0.97, 0.97), abs=0.01)
    red, _, blue, _ = image.to_rgba(0.8)
    assert red > blue
    red, _, blue, _ = image.to_rgba(-0.8)
    assert red < blue


def test_numbers_stand_in_their_cells_and_can_be_read():
    _, axes = draw_heatmap(VALUES, ROWS, COLUMNS, **WORDS)
    numbers = {cell: [t.get_text() for t in texts] for cell, texts in written(axes).items()}
    assert numbers[0, 0] == ["+0.80"]
    assert numbers[0, 1] == ["+0.00"]
    assert numbers[0, 2] == ["-0.40"]
    assert numbers[1, 2] == ["–"]
    assert [t.get_text() for t in axes.get_xticklabels()] == COLUMNS
    assert [t.get_text() for t in axes.get_yticklabels()] == ROWS
    dark = {cell: texts[0].get_color() for cell, texts in written(axes).items()}
    assert (dark[0, 0], dark[1, 0]) == ("white", "black")


def test_intervals_stand_below_and_what_they_leave_out_is_bold():
    _, axes = draw_heatmap(VALUES, ROWS, COLUMNS, low=LOW, high=HIGH, **WORDS)
    cells = written(axes)
    assert [t.get_text() for t in cells[1, 1]] == ["+0.50", "[0.40, 0.60]"]
    assert cells[1, 1][0].get_weight() == "bold"
    assert cells[1, 0][0].get_weight() == "normal"
    _, axes = draw_heatmap(VALUES, ROWS, COLUMNS, low=np.full((2, 3), -np.inf), high=np.full((2, 3), np.inf), **WORDS)
    assert [t.get_text() for t in written(axes)[1, 1]] == ["+0.50"]


def test_nothing_is_cut_off_and_nothing_overlaps():
    names = [f"concept number {i}" for i in range(6)]
    values = np.random.default_rng(0).normal(size=(6, 6))
    figure, axes = draw_heatmap(values, names, names, low=values - 1, high=values + 1, **WORDS)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    frame = figure.bbox
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.texts]
    boxes = [t.get_window_extent(renderer) for t in labels]
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1 for b in boxes)
    inside = [t.get_window_extent(renderer) for t in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(inside) for b in inside[:i])


@pytest.mark.parametrize("values", [[[0.0]], [[250.0]]])
def test_a_single_cell(values):
    png = heatmap(values, ["joy"], ["joy"], **WORDS)
    height, width, _ = imread(io.BytesIO(png)).shape
    assert min(height, width) > 200


def test_bad_input():
    for values, rows in ((VALUES.T, ROWS), (VALUES, ["joy"]), ([], [])):
        with pytest.raises(SpecError, match="as many values"):
            heatmap(values, rows, COLUMNS, **WORDS)
    with pytest.raises(SpecError, match="as many lower ends"):
        heatmap(VALUES, ROWS, COLUMNS, low=LOW[:1], high=HIGH, **WORDS)
    with pytest.raises(SpecError, match="both low and high"):
        heatmap(VALUES, ROWS, COLUMNS, low=LOW, **WORDS)
