"""Intervals of controls that are drawn many times, which must hold for directions that were not drawn."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from contrans.validation.protocol import Hits
from contrans.validation.resampling import crossed_bootstrap
from contrans.validation.rows import false_alarms, gain_rows, rows_of
from contrans.validation.shares import ConceptHits, dealt
from contrans.validation.statistics import random_p_value

N = 60


class Items:
    """As much of a protocol as rows need."""

    name, effect, n_items, n_tokens = "emotion", "hit", N, 1

    def __init__(self) -> None:
        self.concepts = ["calm"]

    def score(self, shift: torch.Tensor | None) -> None:
        raise NotImplementedError

    def hits(self, scores: None, concept: str) -> Hits:
        raise NotImplementedError


def hits(values: np.ndarray) -> ConceptHits:
    return {"hit": {"calm": (values.astype(float), np.ones(N, dtype=bool))}}


def answers(rng: np.random.Generator, shares: Sequence[float]) -> list[ConceptHits]:
    """Of each draw the answers to all items, each right with the draw's share."""
    return [hits(rng.random(N) < share) for share in shares]


def test_the_interval_covers_the_mean_of_all_directions_there_might_be():
    """Draws of .2 or .8 by a coin: what few of them have in the mean is far from .5, though the items tell it well."""
    covered = {"crossed": 0, "items": 0}
    for trial in range(100):
        rng = np.random.default_rng(trial)
        drawn = answers(rng, rng.choice([0.2, 0.8], 12).tolist())
        mean = hits(np.mean([d["hit"]["calm"][0] for d in drawn], axis=0))
        for name, draws in (("crossed", drawn), ("items", [])):
            row = rows_of(Items(), mean, "test", "random", 1.0, draws=draws, seed=trial, bootstrap=True)[-1]
            assert row.value == pytest.approx(np.mean([d["hit"]["calm"][0].mean() for d in drawn]))
            assert row.low is not None
            assert row.high is not None
            covered[name] += row.low <= 0.5 <= row.high
    assert covered["crossed"] >= 88
    assert covered["items"] < 60


def test_equal_draws_add_nothing_to_the_items():
    values = np.random.default_rng(0).random(N)

    def statistic(items: np.ndarray, directions: np.ndarray) -> np.ndarray:
        return ((items @ values / N)[:, None] * directions).mean(1)

    low, high = crossed_bootstrap(statistic, N, 40)
    half = 1.96 * values.std() / np.sqrt(N)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_a_gain_is_paired_by_item_under_every_draw():
    """Draws that change nothing have no gain at all, however few the items."""
    base = hits(np.random.default_rng(1).random(N) < 0.4)
    (mean, calm) = gain_rows(Items(), {"unsteered": base, "random": base}, "random", 1.0, draws=[base] * 3)
    for row in (mean, calm):
        assert (row.value, row.low, row.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_false_alarms_are_the_draws_that_would_pass_for_a_transplant():
    base = np.arange(N) < 20
    draws = [base, np.arange(N) < 22, np.arange(N) < 40, np.arange(N) < 55, np.zeros(N)]
    row = false_alarms(Items(), {"unsteered": hits(base)}, "random", 0.5, [hits(d) for d in draws])
    assert (row.metric, row.value, row.n) == ("false_alarms", 0.4, 5)
    assert row.low is not None
    assert 0 < row.low < 0.4


def test_arms_are_dealt_another_direction_for_each_concept():
    """A direction that makes the model say one word wherever it can has that word's effect, whole, and no other's."""
    n, words = 12, ["calm", "proud", "tired"]
    counts = np.ones(N, dtype=bool)
    draws: list[ConceptHits] = [
        {"hit": {word: (np.full(N, float(i == draw % 3)), counts) for i, word in enumerate(words)}} for draw in range(n)
    ]

    def mean(of: ConceptHits) -> float:
        return float(np.mean([values.mean() for values, _ in of["hit"].values()]))

    assert {mean(d) for d in draws} == {1 / 3}  # whatever is said
    arms = dealt(draws)
    assert len(arms) == n
    assert {mean(d) for d in arms} == {0, 1}
    for word in words:
        assert sorted(d["hit"][word][0][0] for d in arms) == sorted(d["hit"][word][0][0] for d in draws)
    assert dealt(draws[:1]) == draws[:1]


def test_dealt_arms_have_the_spread_of_independent_directions():
    """What a family's words share out among them does not narrow their mean, as it does for one direction."""
    rng = np.random.default_rng(3)
    shares = rng.dirichlet([0.5] * 6, size=300)
    draws: list[ConceptHits] = [
        {"hit": {str(i): (np.full(N, share), np.ones(N, dtype=bool)) for i, share in enumerate(of)}} for of in shares
    ]
    means = np.array([np.mean([values[0] for values, _ in d["hit"].values()]) for d in dealt(draws)])
    assert means.mean() == pytest.approx(1 / 6)
    assert means.std() == pytest.approx(shares.std(0).mean() / np.sqrt(6), rel=0.15)


def test_the_p_value_of_a_mean_over_concepts_is_uniform_where_there_is_no_effect():
    """Transplants that are random directions, one for each concept, pass no more often than promised."""
    rng = np.random.default_rng(5)
    counts = np.ones(1, dtype=bool)
    dealt_p, shared_p = [], []
    for _ in range(400):
        shares = rng.dirichlet([0.5] * 6, size=99 + 6)
        moved = float(np.mean([shares[99 + i, i] for i in range(6)]))
        draws: list[ConceptHits] = [
            {"hit": {str(i): (np.array([share]), counts) for i, share in enumerate(of)}} for of in shares[:99]
        ]
        rivals = [np.mean([values[0] for values, _ in d["hit"].values()]) for d in dealt(draws)]
        dealt_p.append(random_p_value(moved, np.array(rivals)))
        shared_p.append(random_p_value(moved, shares[:99].mean(1)))
    assert np.mean(np.array(dealt_p) <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(dealt_p) == pytest.approx(0.5, abs=0.05)
    assert np.mean(np.array(shared_p) <= 0.05) > 0.3  # of one direction for all
