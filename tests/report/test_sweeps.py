"""Tables, lines and heat maps of a sweep, read back from the axes before they become pixels."""

import io
import math
from collections.abc import Sequence
from typing import Any

import pytest
from matplotlib.image import imread

from contrans.errors import ArtifactError
from contrans.report.sweeps import draw_line, gains, sweep_figure, sweep_grid, sweep_title, value_labels

CONCEPTS = ("anger", "fear", "all")
STEPS = (1000, 2000, 143_000)


def point(values: dict[str, Any], effect: float, *, concepts: Sequence[str] = CONCEPTS) -> dict[str, Any]:
    """A point whose transplant has an effect; the gain is .1 less, and .2 more for fear."""
    arms = {"unsteered": 0.1, "transplanted": effect, "own": effect + 0.05}
    rows = [
        {
            "concept": concept,
            "protocol": "emotion",
            "split": "test",
            "arm": arm,
            "metric": "gain",
            "dose": 0.2,
            "value": effect - 0.1 + 0.2 * (concept == "fear"),
            "low": effect - 0.3,
            "high": None if concept == "anger" else effect + 0.1,
            "n": 50,
        }
        for arm in ("own", "transplanted")
        for concept in concepts
    ]
    return {
        "values": values,
        "error": None,
        "summary": {
            **{arm: {"value": v, "low": v - 0.05, "high": v + 0.04} for arm, v in arms.items()},
            "gain_recovered": {"value": 0.9, "low": None, "high": None},
        },
        "choice": {"chosen": {"source_block": 27, "target_block": 14, "mix": ["wrapped", "spread"]}, "tried": []},
        "effects": {"emotion": "logit_accuracy"},
        "rows": rows,
        "findings": [],
        "run": {"id": "r"},
    }


def failed(values: dict[str, Any]) -> dict[str, Any]:
    nothing = {"summary": None, "choice": None, "effects": {}, "rows": [], "findings": [], "run": None}
    return {"values": values, "error": "It failed.", **nothing}


def sweep(points: list[dict[str, Any]], **spec: str) -> dict[str, Any]:
    keys = list(points[0]["values"]) if points else []
    return {"spec": {"source": "org/small", "target": "org/large", **spec}, "sweep": {"keys": keys, "points": points}}


def over_pairs(*numbers: int) -> dict[str, Any]:
    return sweep([point({"refine.pairs": n}, 0.2 + n / 100) for n in numbers])


def test_table_has_arms_with_intervals_and_what_was_chosen():
    grid = sweep_grid(sweep([point({"refine.pairs": 5}, 0.5), failed({"refine.pairs": 10})]))
    arms = ("unsteered", "transplanted", "own")
    assert grid.columns == ("refine.pairs", *arms, "gain recovered", "blocks", "rows")
    assert grid.rows == (
        (
            "5",
            "0.10 [0.05, 0.14]",
            "0.50 [0.45, 0.54]",
            "0.55 [0.50, 0.59]",
            "0.90",
            "27 → 14",
            "wrapped + spread",
        ),
        ("10", *["–"] * 6),
    )
    assert grid.title == "logit accuracy by refine.pairs, test items"


def test_table_of_two_keys_has_a_column_for_each():
    points = [point({"seed": s, "refine.estimator": e}, 0.5) for s in (0, 1) for e in ("pca", "lda")]
    grid = sweep_grid(sweep(points))
    assert grid.columns[:2] == ("seed", "refine.estimator")
    assert [row[:2] for row in grid.rows] == [("0", "pca"), ("0", "lda"), ("1", "pca"), ("1", "lda")]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([5, 10, None], ["5", "10", "null"]),
        (["pca", "lda"], ["pca", "lda"]),
        (["org/a-7b", "org/a-13b"], ["a-7b", "a-13b"]),
        (["org/a", "other/a"], ["org/a", "other/a"]),
        (["org/a@one", "org/a@other"], ["one", "other"]),
        (["org/a", "org/a@one"], ["a", "a@one"]),
        (["/models/source", "/models/spoilt"], ["source", "spoilt"]),
        (["org/a"], ["org/a"]),
        (["org/a", "org/b", "org/a"], ["a", "b", "a"]),
        ([True, False], ["True", "False"]),
        (
            ["EleutherAI/pythia-70m@step1", "EleutherAI/pythia-70m@step143000"],
            ["step1 (2.1 M tokens)", "step143000 (300 B tokens)"],
        ),
    ],
)
def test_value_labels(values, labels):
    assert value_labels(values) == labels


def test_line_has_an_arm_each_with_its_intervals():
    _, axes = draw_line(over_pairs(5, 20, 10))
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert len(lines) == 3
    transplanted = next(line for label, line in lines.items() if label.startswith("transplanted"))
    assert list(transplanted.get_xdata()) == [5, 10, 20]
    assert list(transplanted.get_ydata()) == pytest.approx([0.25, 0.3, 0.4])
    segments = [path for bars in axes.containers for path in bars.lines[2][0].get_segments()]
    assert len(segments) == 9
    ends = {(float(s[0][0]), round(float(s[0][1]), 3), round(float(s[1][1]), 3)) for s in segments}
    assert (10.0, 0.25, 0.34) in ends
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("refine.pairs", "logit accuracy")
    assert axes.get_xscale() == "linear"


def test_line_is_logarithmic_over_a_wide_range_and_leaves_failures_out():
    found = over_pairs(5, 100)
    found["sweep"]["points"].append(failed({"refine.pairs": 50}))
    _, axes = draw_line(found)
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "50", "100"]
    assert [list(line.get_xdata()) for line in axes.lines if "own" in line.get_label()] == [[5, 100]]
    _, axes = draw_line(sweep([point({"seed": n}, 0.5) for n in (0, 100)]))
    assert axes.get_xscale() == "linear"


def test_heat_map_over_checkpoints_has_concepts_by_tokens_seen():
    sources = [f"EleutherAI/pythia-70m@step{step}" for step in STEPS]
    points = [point({"source": sources[0]}, 0.1), failed({"source": sources[1]}), point({"source": sources[2]}, 0.6)]
    shown = gains(sweep(points))
    assert shown["rows"] == ["anger", "fear", "mean"]
    assert shown["columns"] == ["step1000 (2.1 B tokens)", "step2000 (4.19 B tokens)", "step143000 (300 B tokens)"]
    assert shown["values"][0] == pytest.approx([0.0, math.nan, 0.5], nan_ok=True)
    assert shown["values"][1] == pytest.approx([0.2, math.nan, 0.7], nan_ok=True)
    assert shown["low"][2] == pytest.approx([-0.2, math.nan, 0.3], nan_ok=True)
    assert all(math.isnan(high) for high in shown["high"][0])


def test_one_concept_stands_alone():
    points = [point({"refine.estimator": e}, 0.5, concepts=("honesty", "all")) for e in ("pca", "lda")]
    assert gains(sweep(points))["rows"] == ["honesty"]


def test_two_keys_make_a_grid_of_means():
    points = [point({"seed": s, "refine.pairs": n}, s / 10 + n / 100) for s in (1, 2) for n in (5, 10, 20)]
    shown = gains(sweep(points))
    assert (shown["rows"], shown["columns"]) == (["1", "2"], ["5", "10", "20"])
    assert shown["values"][0] == pytest.approx([0.05, 0.1, 0.2])
    assert shown["values"][1] == pytest.approx([0.15, 0.2, 0.3])


@pytest.mark.parametrize(
    ("found", "title"),
    [
        (over_pairs(5, 10), "small → large, by refine.pairs"),
        (sweep([point({"source": f"org/m@{r}"}, 0.5) for r in "ab"]), "m → large, by source"),
        (
            sweep([point({"source": f"org/{r}", "seed": 0}, 0.5) for r in "ab"]),
            "each source → large, by source and seed",
        ),
        (sweep([failed({"source": "org/a"}), failed({"source": "org/b"})]), "each source → large, by source"),
    ],
)
def test_every_kind_has_a_title_and_becomes_a_png(found, title):
    assert sweep_title(found) == title
    assert imread(io.BytesIO(sweep_figure(found))).shape[0] > 200


def test_a_sweep_without_points_is_refused():
    for show in (sweep_grid, sweep_figure, sweep_title, gains):
        with pytest.raises(ArtifactError, match="has no points"):
            show(sweep([]))
