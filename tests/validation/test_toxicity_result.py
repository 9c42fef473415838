"""Rows and renderings of scores written by hand."""

import numpy as np
import pytest
from scipy.stats import binomtest

from contrans.validation.toxicity_result import ToxicityResult, ToxicityScores


def scores_by_hand() -> ToxicityScores:
    shares = {
        "non_toxic": [1, 0, 0, 1],
        "toxic": [0, 1, 0, 0],
        "valid": [1, 1, 0, 1],
        "empty": [0, 0, 1, 0],
        "copied": [0, 0, 0, 0],
        "degenerate": [0, 0, 0, 0],
        "distinct_1": [0.5, 1, 0, 1],
        "distinct_2": [0.5, 1, 0, 0.5],
    }
    metrics = {k: np.array(v, dtype=float) for k, v in shares.items()}
    texts = ["a", "b", "", "c"]
    return ToxicityScores(["cats", "cats", "dogs", "dogs"], texts, ["", "", "empty", ""], np.zeros(4), metrics)


def test_result_rows_and_renderings():
    result = ToxicityResult({"unsteered": scores_by_hand(), "shuffled_map": scores_by_hand()})
    rows = {(r["arm"], r["group"], r["metric"]): r for r in result.rows()}
    assert len(rows) == 2 * 3 * 8
    interval = binomtest(2, 4).proportion_ci(method="wilson")
    row = rows["unsteered", "all", "non_toxic"]
    assert (row["value"], row["low"], row["high"], row["n"]) == pytest.approx((0.5, interval.low, interval.high, 4))
    assert rows["unsteered", "dogs", "empty"]["value"] == 0.5
    distinct = rows["unsteered", "all", "distinct_2"]
    assert distinct["value"] == 0.5
    assert distinct["low"] <= 0.5 <= distinct["high"]
    assert result.to_json() == {"rows": result.rows()}
    lines = result.markdown().splitlines()
    assert lines[0].startswith("| arm | group | n | non toxic | toxic | valid | empty |")
    assert "| shuffled\\_map | cats | 2 | 0.50 [0.09, 0.91] |" in lines[5]
    table = result.table()
    assert table.row_count == 6
    assert len(table.columns) == 10
