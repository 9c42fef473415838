"""Bounds of windows as a table, and means over texts by hand."""

import math

import pytest

from contrans.validation.windows import ReadText, Window, window_bounds, window_rows


@pytest.mark.parametrize(
    ("length", "window", "expected"),
    [
        (0, 4, []),
        (1, 4, [(0, 1)]),  # the first window counts however short
        (4, 4, [(0, 4)]),
        (5, 4, [(0, 4)]),
        (6, 4, [(0, 4), (4, 6)]),
        (9, 3, [(0, 3), (3, 6), (6, 9)]),
    ],
)
def test_window_bounds(length, window, expected):
    assert list(window_bounds(length, window)) == expected


def read(*windows: tuple[int, float, float, float] | None) -> ReadText:
    """Per window its tokens, −log p, projection and score; None where nothing was written."""
    found = {k: Window(w[0], w[1], w[2], {"score": w[3]}) for k, w in enumerate(windows) if w is not None}
    return ReadText([""] * len(windows), found)


def test_means_over_texts_by_hand():
    unsteered = [read((4, 1.0, 0.5, 0.0), (4, 1.0, 0.7, 1.0)), read((4, 2.0, 0.1, 1.0)), read(None)]
    texts = [read((4, 1.0, 1.5, 1.0), (4, 3.0, 1.0, 1.0)), read((4, 2.0, 0.4, 1.0), (2, 6.0, 0.5, 0.0)), read(None)]
    rows = {(r.metric, r.window): r for r in window_rows("own", texts, unsteered, [(0, 4), (4, 8)], seed=0)}
    expected = {
        ("written", 0): (2 / 3, 3),
        ("score", 0): (1.0, 2),
        ("effect", 0): (0.65, 2),
        ("score_gain", 0): (0.5, 2),
        ("perplexity", 0): (math.exp(1.5), 2),
        ("written", 1): (2 / 3, 3),
        ("score", 1): (0.5, 2),
        # the second unsteered text has ended, so its first window stands for its second
        ("effect", 1): (0.35, 2),
        ("score_gain", 1): (-0.5, 2),
        # four tokens of 3 nats and two of 6
        ("perplexity", 1): (math.exp(4.0), 2),
    }
    assert {key: (pytest.approx(r.value), r.n) for key, r in rows.items()} == expected
    assert all(r.low is not None and r.high is not None and r.low <= r.value <= r.high for r in rows.values())
    (alone,) = [r for r in window_rows("own", texts[:1], unsteered[:1], [(0, 4)], seed=0) if r.metric == "effect"]
    assert (alone.value, alone.low, alone.high, alone.n) == (1.0, None, None, 1)


def test_an_unsteered_model_that_answered_only_later_or_never():
    late = window_rows("own", [read((4, 1.0, 1.5, 1.0))], [read(None, (4, 1.0, 0.5, 0.0))], [(0, 1)], seed=0)
    assert {r.metric: r.value for r in late}["effect"] == 1.0
    never = window_rows("own", [read((4, 1.0, 1.5, 1.0))], [read(None)], [(0, 1)], seed=0)
    assert [r.metric for r in never] == ["written", "score", "perplexity"]
