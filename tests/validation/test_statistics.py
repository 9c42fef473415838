"""Intervals and tests against SciPy and brute force."""

import numpy as np
import pytest
from scipy.stats import binomtest

from contrans.errors import FitError
from contrans.validation.statistics import cluster_bootstrap, mcnemar, sufficient_dose, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (171, 180)])
def test_wilson_equals_scipy(k, n):
    expected = binomtest(k, n).proportion_ci(method="wilson")
    got = wilson(k, n)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert got.value == k / n


def test_mcnemar_equals_the_exact_binomial_test():
    rng = np.random.default_rng(0)
    before, after = rng.random(60) < 0.3, rng.random(60) < 0.6
    won, lost = int((after & ~before).sum()), int((before & ~after).sum())
    assert mcnemar(before, after) == pytest.approx(binomtest(won, won + lost).pvalue)
    assert mcnemar(before, before) == 1.0


def test_bootstrap_covers_a_mean():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        x = rng.random(80) < 0.3
        low, high = cluster_bootstrap(lambda w, x=x: (w @ x) / w.sum(1), 80, draws=300, seed=trial)
        covered += low <= 0.3 <= high
    assert covered >= 87


def test_bootstrap_leaves_out_draws_without_a_value():
    low, high = cluster_bootstrap(lambda w: np.where(w[:, 0] == 0, np.nan, 1.0), 3, draws=50)
    assert (low, high) == (1.0, 1.0)
    assert cluster_bootstrap(lambda w: np.full(len(w), np.nan), 3, draws=5) == (float("-inf"), float("inf"))


def test_the_smallest_sufficient_dose():
    assert sufficient_dose([0.1, 0.2, 0.3], [0.5, 0.96, 1.0], 0.1) == 0.2
    assert sufficient_dose([0.3, 0.1, 0.2], [1.0, 0.5, 0.9], 0.0) == 0.3
    # an arm that does nothing takes the smallest dose
    assert sufficient_dose([0.1, 0.2], [0.1, 0.1], 0.1) == 0.1


def test_no_items():
    with pytest.raises(FitError, match="no items"):
        wilson(0, 0)
