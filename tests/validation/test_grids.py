"""One grid of strings, on a terminal and in markdown."""

import io

import pytest
from rich.console import Console

from contrans.validation.grids import Grid
from contrans.validation.wording import shown


def printed(table) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_grid_of_numbers():
    grid = Grid("[title]", ("arm", "n"), (("a", "1"),))
    assert grid.markdown_table() == "| arm | n |\n| --- | ---: |\n| a | 1 |"
    assert grid.markdown() == "[title]:\n\n" + grid.markdown_table()
    table = grid.rich()
    assert [c.justify for c in table.columns] == ["left", "right"]
    assert "[title]" in printed(table)
    assert shown(0.123, 0.1, 0.2) == "0.12 [0.10, 0.20]"
    assert shown(0.123) == "0.12"


def test_a_grid_of_running_text_is_to_the_left():
    grid = Grid("samples", ("prompt", "shuffled_map"), (("a [red]prompt", "a|b\n<b>"), ("p", "")), prose=True)
    assert grid.markdown_table().splitlines() == [
        "| prompt | shuffled\\_map |",
        "| --- | --- |",
        "| a [red]prompt | a\\|b<br>&lt;b> |",
        "| p |  |",
    ]
    assert [c.justify for c in grid.rich().columns] == ["left", "left"]
    assert "a [red]prompt" in printed(grid.rich())
    assert all(panel.prose for panel in grid.panels(1))


def test_a_stressed_row_is_bold():
    grid = Grid("t", ("arm", "n"), (("a_b", "1"), ("c", "2")), frozenset({0}))
    assert "**a\\_b**" in grid.markdown_table()
    assert "**c**" not in grid.markdown_table()


@pytest.mark.parametrize(
    ("value", "said"), [(3e-18, "0.00"), (-3e-18, "0.00"), (0.0004, "0.0004"), (-0.0004, "-0.0004"), (0.5, "0.50")]
)
def test_a_small_value_is_not_nothing_and_what_rounding_left_is(value, said):
    assert shown(value) == said
