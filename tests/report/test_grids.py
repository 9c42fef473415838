"""Tables of a protocol's results: what stands in their cells."""

from typing import Any

from contrans.report.evidence import Evidence
from contrans.report.grids import controls_grid
from contrans.validation.row_table import RowTable
from tests.results import CONCEPTS, emotion_rows, row


def with_controls(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with gains of the controls, of which random directions raise the selectivity of fear."""
    found = list(rows)
    for arm, value, selective, draws in (("random", 0.02, 0.0, 149), ("shuffled_map", -0.02, -0.02, 24)):
        for concept in (*CONCEPTS, "all"):
            found.append(row(concept, arm, "gain", value, low=value - 0.01, high=value + 0.01, dose=0.2))
            much = 0.1 if (concept, arm) == ("fear", "random") else selective
            found.append(row(concept, arm, "selectivity_gain", much, low=much - 0.03, high=much + 0.03, dose=0.2))
        found.append(row("all", arm, "false_alarms", 0.3, low=0.2, high=0.4, n=draws, dose=0.2))
    found += [row("all", arm, "random_p", p, n=149) for arm, p in (("transplanted", 1 / 150), ("own", 0.2))]
    found.append(row("fear", "own", "random_p", 0.3, n=149))
    return [*found, row("all", "wrong_concept", "gain", -0.1, low=-0.2, high=0.0, dose=0.2)]


def test_what_the_controls_move_has_a_table_of_its_own():
    grid = controls_grid(RowTable.of(with_controls(emotion_rows())), "all")
    assert grid is not None
    assert grid.columns == (
        "control",
        "gain of logit accuracy",
        "gain of selectivity",
        "raised for",
        "draws",
        "pass alone",
        "transplanted against it",
        "own against it",
    )
    assert grid.rows == (
        ("random", "0.02 [0.01, 0.03]", "0.00 [-0.03, 0.03]", "fear", "149", "30 %", "p = 0.007", "p = 0.20"),
        ("shuffled map", "-0.02 [-0.03, -0.01]", "-0.02 [-0.05, 0.01]", "none", "24", "30 %", "–", "–"),
        ("wrong concept", "-0.10 [-0.20, 0.00]", "–", "none", "–", "–", "–", "–"),
    )
    said = Evidence.of(with_controls(emotion_rows())).markdown()
    assert grid.title in said
    # of one concept nothing is counted, and without controls there is nothing to say
    alone = [r for r in with_controls(emotion_rows()) if r["concept"] in ("fear", "all")]
    one = controls_grid(RowTable.of(alone), "fear")
    assert one is not None
    assert one.columns == ("control", "gain of logit accuracy", "gain of selectivity", "draws", "own against it")
    assert one.title == "what controls move against unsteered, fear (p before Holm), test items"
    assert one.rows[:2] == (
        ("random", "0.02 [0.01, 0.03]", "0.10 [0.07, 0.13]", "149", "p = 0.30"),
        ("shuffled map", "-0.02 [-0.03, -0.01]", "-0.02 [-0.05, 0.01]", "–", "–"),
    )
    assert controls_grid(RowTable.of(emotion_rows()), "all") is None


def test_where_the_effect_is_the_selectivity_the_controls_are_judged_by_it_and_the_accuracy_stands_beside():
    names = {"gain": "logit_accuracy_gain", "selectivity_gain": "gain"}
    rows = [{**r, "metric": names.get(r["metric"], r["metric"])} for r in with_controls(emotion_rows())]
    rows += [{**r, "metric": "selectivity"} for r in rows if r["metric"] == "logit_accuracy"]
    grid = controls_grid(RowTable.of(rows, effect="selectivity"), "all")
    assert grid is not None
    assert grid.columns[1:4] == ("gain of selectivity", "gain of logit accuracy", "raised for")
    assert grid.rows[0][1:4] == ("0.00 [-0.03, 0.03]", "0.02 [0.01, 0.03]", "fear")
