"""Intervals and tests against SciPy, closed testing by brute force, and simulation."""

import itertools
import logging

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from contrans.errors import FitError
from contrans.validation.resampling import bca_interval, jackknife
from contrans.validation.statistics import (
    area_under_curve,
    bca_bootstrap,
    cluster_bootstrap,
    half_width,
    holm,
    interpolate_at,
    mcnemar,
    minimal_detectable,
    power_note,
    random_p_value,
    sufficient_dose,
    wilson,
)


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


@pytest.mark.parametrize("method", [cluster_bootstrap, bca_bootstrap])
def test_bootstrap_leaves_out_draws_without_a_value(method):
    low, high = method(lambda w: np.where(w[:, 0] == 0, np.nan, 1.0), 3, draws=50)
    assert (low, high) == (1.0, 1.0)
    assert method(lambda w: np.full(len(w), np.nan), 3, draws=5) == (float("-inf"), float("inf"))


def test_the_smallest_sufficient_dose():
    assert sufficient_dose([0.1, 0.2, 0.3], [0.5, 0.96, 1.0], 0.1) == 0.2
    assert sufficient_dose([0.3, 0.1, 0.2], [1.0, 0.5, 0.9], 0.0) == 0.3
    # an arm that does nothing takes the smallest dose
    assert sufficient_dose([0.1, 0.2], [0.1, 0.1], 0.1) == 0.1
    # where every dose does harm, the one that does least
    assert sufficient_dose([0.2, 0.1], [0.2, 0.3], 0.5) == 0.1


def test_no_items():
    with pytest.raises(FitError, match="no items"):
        wilson(0, 0)


# -- BCa ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [0.5, 1.5])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_bca_of_the_same_draws_equals_scipy(skew, level):
    x = np.random.default_rng(3).lognormal(sigma=skew, size=40)
    found = bootstrap(
        (x,), np.mean, n_resamples=999, confidence_level=level, method="BCa", rng=np.random.default_rng(5)
    )
    left_out = jackknife(lambda w: (w @ x) / w.sum(1), len(x))
    assert left_out == pytest.approx([np.delete(x, i).mean() for i in range(len(x))])
    got = bca_interval(found.bootstrap_distribution, float(x.mean()), left_out, level=level)
    assert got[:2] == pytest.approx(tuple(found.confidence_interval), rel=1e-9)
    assert got.fallback == ""


def test_bca_bootstrap_is_near_scipys_with_draws_of_its_own():
    x = np.random.default_rng(3).lognormal(sigma=1.0, size=60)
    found = bootstrap((x,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(5)).confidence_interval
    got = bca_bootstrap(lambda w: (w @ x) / w.sum(1), len(x), draws=20_000, seed=1)
    assert got == pytest.approx((found.low, found.high), rel=0.02)


def test_bca_covers_a_skewed_statistic_better_than_the_percentile_interval():
    """The variance of an exponential variable, whose percentile interval lies too low (Efron 1987, §1)."""
    rng = np.random.default_rng(0)

    def variance(w: np.ndarray, x: np.ndarray) -> np.ndarray:
        mean = (w @ x) / w.sum(1)
        return (w @ x**2) / w.sum(1) - mean**2

    covered = {"bca": 0, "percentile": 0}
    for trial in range(200):
        x = rng.exponential(size=80)
        for name, method in (("bca", bca_bootstrap), ("percentile", cluster_bootstrap)):
            low, high = method(lambda w, x=x: variance(w, x), len(x), draws=400, seed=trial)
            covered[name] += low <= 1.0 <= high
    assert covered["bca"] > covered["percentile"] + 4
    assert covered["bca"] >= 168


def test_a_paired_difference_takes_no_notice_of_what_the_arms_share():
    rng = np.random.default_rng(0)
    hardness = 10 * rng.random(50)
    gain = 0.3 + 0.1 * rng.random(50)
    low, high = bca_bootstrap(lambda w: (w @ (hardness + gain) - w @ hardness) / w.sum(1), 50)
    assert 0.33 < low < gain.mean() < high < 0.37


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "point", "left_out", "level", "reason"),
    [
        ([1.0, 2, 3, 4], NAN, [2.0, 3.0], 0.95, "on the items themselves"),
        ([1.0, 2, 3, 4], 2.5, [2.0, NAN], 0.95, "left out"),
        ([1.0, 2, 3, 4], 9.0, [2.0, 3.0], 0.95, "one side"),
        # one item bears all the spread: a is near 1/6, its largest value
        (range(100), 98.5, [0.0] * 9999 + [-100.0], 0.9999, "too skewed"),
    ],
)
def test_where_bca_is_undefined_the_percentile_interval_stands_and_says_why(values, point, left_out, level, reason):
    values = np.array(values, dtype=float)
    got = bca_interval(values, point, np.array(left_out), level=level)
    assert got[:2] == pytest.approx(tuple(np.quantile(values, [(1 - level) / 2, (1 + level) / 2])))
    assert reason in got.fallback


def test_the_fallback_is_logged(caplog):
    with caplog.at_level(logging.WARNING, "contrans"):
        low, high = bca_bootstrap(lambda w: np.where(w[:, 0] > 0, w[:, 0], np.nan), 4, draws=200)
    assert low < high
    assert "once some single item is left out" in caplog.text


def test_equal_items_and_ties():
    # all draws alike
    assert bca_bootstrap(lambda w: w.mean(1), 9) == (1.0, 1.0)
    # a jackknife without spread leaves the bias alone to correct
    got = bca_interval(np.array([0.0, 1, 1, 2, 2, 2, 3]), 2.0, np.full(5, 2.0), level=0.5)
    assert got.fallback == ""
    # symmetric draws without skew: BCa is the percentile interval
    values = np.arange(-500, 501) / 100
    got = bca_interval(values, 0.0, np.array([-1.0, 0.0, 1.0]))
    assert got[:2] == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


# -- Holm, random directions ----------------------------------------------------------------------------------


def test_holm_equals_closed_testing_with_bonferroni():
    """An adjusted p-value is the largest Bonferroni p over all sets that hold the hypothesis (Holm 1979, §3)."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 5):
        p = rng.random(size) ** 3
        sets = [s for k in range(1, size + 1) for s in itertools.combinations(range(size), k)]
        expected = [max(min(1.0, len(s) * min(p[list(s)])) for s in sets if i in s) for i in range(size)]
        assert holm(p.tolist()) == pytest.approx(expected)


def test_holm_keeps_keys_and_order():
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})
    assert list(holm({"z": 0.5, "a": 0.1})) == ["z", "a"]
    assert holm([]) == []
    assert holm({}) == {}


@pytest.mark.parametrize("p", [[0.1, 1.5], [-0.1], [NAN]])
def test_holm_refuses_what_is_no_p_value(p):
    with pytest.raises(FitError, match="between 0 and 1"):
        holm(p)


def test_random_p_value_counts_itself():
    draws = np.arange(99)
    assert random_p_value(1000, draws) == pytest.approx(0.01)
    assert random_p_value(-1, draws) == 1.0
    # a tie is as good as a win of the random direction
    assert random_p_value(98, draws) == pytest.approx(0.02)


def test_random_p_value_is_uniform_where_there_is_no_effect():
    rng = np.random.default_rng(0)
    p = np.array([random_p_value(x[0], x[1:]) for x in rng.normal(size=(2000, 100))])
    assert [(p <= a).mean() for a in (0.05, 0.5)] == pytest.approx([0.05, 0.5], abs=0.03)


def test_random_p_value_refuses_few_draws_and_no_numbers():
    with pytest.raises(FitError, match=r"98 random directions .* at least 99"):
        random_p_value(1.0, np.zeros(98))
    with pytest.raises(FitError, match="not a number"):
        random_p_value(NAN, np.zeros(99))


# -- power ----------------------------------------------------------------------------------------------------


def test_power_note_says_what_the_items_see():
    assert power_note(200) == "n=200 sees differences of ±7 points"
    assert power_note(817, 0.2) == "n=817 sees differences of ±3 points"
    assert power_note(100_000) == "n=100000 sees differences of ±0.3 points"
    paired = power_note(200, discordant=0.2)
    assert paired == "n=200 sees differences of ±7 points, ±6 between two arms that disagree on 20 % of the items"


def test_half_width_is_that_of_the_normal_interval():
    rng = np.random.default_rng(0)
    shares = rng.binomial(200, 0.3, size=200_000) / 200
    assert half_width(200, p=0.3) == pytest.approx(1.96 * shares.std(), rel=0.01)
    arms = rng.multinomial(200, [0.1, 0.1, 0.8], size=200_000)
    assert half_width(200, discordant=0.2) == pytest.approx(1.96 * ((arms[:, 0] - arms[:, 1]) / 200).std(), rel=0.01)


def test_the_minimal_detectable_difference_is_found_with_the_power_asked_for():
    rng = np.random.default_rng(0)
    n, d = 300, 0.3
    delta = minimal_detectable(n, discordant=d)
    wins, losses, _ = rng.multinomial(n, [(d + delta) / 2, (d - delta) / 2, 1 - d], size=20_000).T
    # McNemar's test without correction, which the formula is about
    found = np.abs(wins - losses) / np.sqrt(wins + losses) > 1.96
    assert found.mean() == pytest.approx(0.8, abs=0.02)
    share = minimal_detectable(n, p=0.5)
    found = np.abs(rng.binomial(n, 0.5 + share, size=20_000) / n - 0.5) > half_width(n)
    assert found.mean() == pytest.approx(0.8, abs=0.03)


def test_too_few_items_detect_nothing():
    assert minimal_detectable(3, discordant=0.2) == float("inf")
    with pytest.raises(FitError, match="No items"):
        power_note(0)
    with pytest.raises(FitError, match="between 0 and 1"):
        half_width(10, p=1.2)


# -- curves ---------------------------------------------------------------------------------------------------


def test_area_and_height_equal_numpys():
    x, y, base = np.array([0.3, 0.1, 1.0]), np.array([0.6, 0.3, 0.9]), 0.1
    fine = np.linspace(0, 0.8, 100_001)
    curve = np.interp(fine, [0, 0.1, 0.3, 1.0], [base, 0.3, 0.6, 0.9])
    assert area_under_curve(x, y, 0.8, base=base) == pytest.approx(np.trapezoid(curve, fine), abs=1e-8)
    assert area_under_curve(x, y, 1.0, base=base) == pytest.approx(0.02 + 0.09 + 0.525)
    for budget in (0.05, 0.1, 0.25, 1.0):
        expected = np.interp(budget, [0, 0.1, 0.3, 1.0], [base, 0.3, 0.6, 0.9])
        assert interpolate_at(x, y, budget, base=base) == pytest.approx(expected)


def test_curves_of_many_draws_at_once():
    rng = np.random.default_rng(0)
    x, y, base = rng.random(6), rng.random((50, 6)), rng.random(50)
    budget = 0.9 * x.max()
    for function in (area_under_curve, interpolate_at):
        one_by_one = [float(function(x, row, budget, base=b)) for row, b in zip(y, base, strict=True)]
        assert function(x, y, budget, base=base) == pytest.approx(one_by_one)
    y[0] = NAN
    assert np.isnan(interpolate_at(x, y, budget, base=base)).sum() == 1


def test_points_of_one_kl_count_as_their_mean():
    assert interpolate_at([0.5, 0.5, 1.0], [0.2, 0.4, 1.0], 0.5) == pytest.approx(0.3)
    # half-precision rounding below zero is zero
    assert interpolate_at([-1e-4, 1.0], [0.0, 1.0], 0.5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("x", "y", "at", "message"),
    [
        ([0.1, 0.2], [1.0, 2.0], 0.3, "goes from KL 0 to 0.2"),
        ([0.1], [1.0], 0.0, "says nothing at 0"),
        ([-0.1, 0.2], [1.0, 2.0], 0.1, "negative"),
        ([NAN], [1.0], 0.1, "not a number"),
        ([0.1, 0.2], [1.0], 0.1, "one effect per KL"),
        ([], [], 0.1, "one effect per KL"),
    ],
)
def test_curves_that_cannot_be_read(x, y, at, message):
    for function in (area_under_curve, interpolate_at):
        with pytest.raises(FitError, match=message):
            function(x, y, at)
