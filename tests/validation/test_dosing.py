"""Doses: what a KL budget buys each arm, and each draw of a control."""

import math

import numpy as np
import pytest

from contrans.errors import FitError
from contrans.validation.arms import random_direction
from contrans.validation.dosing import calibrate, random_reach_at_kl
from contrans.validation.fluency import FluencyMeter
from contrans.validation.pricing import dose_at_kl, draws_at_kl, mean_kl
from tests.validation.moods import BLOCK, planted, protocol


def test_a_kl_budget_is_met_by_every_arm(worded, family):
    directions = planted(worded, family)
    meter = FluencyMeter(worded, BLOCK, ["the cat sat there", "one stone alone on a mountain"])
    arms = ["unsteered", "transplanted", "own", "random", "shuffled_map", "wrong_concept", "opposite"]
    found = calibrate(
        protocol(worded, family, "dev", 2), directions, arms=arms, select="kl", meter=meter, kl_budget=0.05
    )
    for arm in ("transplanted", "own", "shuffled_map"):
        assert mean_kl(meter, directions, arm, found.doses[arm]) == pytest.approx(0.05, rel=0.021)
    assert set(found.draw_doses) == {"random"}
    assert len(found.draw_doses["random"]) == 20
    for draw, dose in enumerate(found.draw_doses["random"]):
        assert meter.kl(directions.shift("random", "", dose, draw)) == pytest.approx(0.05, rel=0.051)
    assert found.doses["random"] == pytest.approx(np.median(found.draw_doses["random"]), rel=1e-3)
    assert found.doses["wrong_concept"] == found.doses["opposite"] == found.doses["transplanted"]
    kl = {r.dose: r.value for r in found.rows if (r.arm, r.metric) == ("own", "kl")}
    assert len(kl) == 5
    assert list(kl.values()) == sorted(kl.values())
    assert kl[found.doses["own"]] == pytest.approx(0.05, rel=0.021)


@pytest.mark.parametrize(
    ("kl", "budget"),
    [
        (lambda d: d**2, 0.1),
        (lambda d: 3e-7 * d**1.5, 0.1),
        (lambda d: 1e6 * d**2.2, 0.1),
        (lambda d: 0.0 if d < 5 else (d - 5) ** 3, 0.02),
        (lambda d: d**2 if d < 0.25 else math.nan, 0.05),
        (lambda d: np.expm1(d) + 0.1 * d, 9.0),
    ],
)
def test_dose_at_kl(kl, budget):
    calls = []
    dose = dose_at_kl(lambda d: (calls.append(d), kl(d))[1], budget)
    assert kl(dose) == pytest.approx(budget, rel=0.02)
    assert len(calls) <= 25


def test_dose_at_kl_takes_the_near_side_of_a_jump_and_refuses_what_cannot_be():
    assert dose_at_kl(lambda d: 0.01 if d < 0.3 else 5.0, 0.1) == pytest.approx(0.3, rel=1e-5)
    with pytest.raises(FitError, match=r"No dose was found that costs 0\.1"):
        dose_at_kl(lambda d: 0.01, 0.1)
    with pytest.raises(FitError, match="budget must be a number above 0"):
        dose_at_kl(lambda d: d, 0.0)


class Priced:
    """A meter of made-up prices: of a shift v it takes price(|v|)."""

    n_tokens = 1

    def __init__(self, price):
        self.price, self.asked = price, 0

    def kl_many(self, shifts):
        self.asked += len(shifts)
        return [self.price(float(s.norm())) for s in shifts]


@pytest.mark.parametrize(
    "price",
    [
        lambda size: size**2,
        lambda size: 1e-4 * size**4,
        lambda size: 5.0 if size > 3 else 0.01 * size,  # a jump, which no dose hits
        lambda size: math.nan if size > 2 else size**2,
    ],
)
def test_draws_whose_price_is_odd_are_searched_for_alone(worded, family, price):
    directions, meter = planted(worded, family), Priced(price)
    doses = draws_at_kl(meter, directions, "random", range(3), 0.1, start=1.0)  # pyright: ignore[reportArgumentType]
    for dose in doses:
        size = dose * directions.residual_norm
        assert price(size) == pytest.approx(0.1, rel=0.051) or (price(size) < 0.1 < price(size * 1.001))


def test_a_draw_costs_the_budget_in_the_mean_over_concepts(worded, family):
    directions = planted(worded, family)
    meter = FluencyMeter(worded, BLOCK, ["the cat sat there", "one stone alone on a mountain"])
    (dose,) = draws_at_kl(meter, directions, "shuffled_map", [0], 0.05, start=0.3)
    kl = [meter.kl(directions.shift("shuffled_map", c, dose)) for c in directions.concepts]
    assert np.mean(kl) == pytest.approx(0.05, rel=0.051)
    assert max(kl) > 1.01 * min(kl)


def test_what_random_directions_reach_is_their_mean_and_two_standard_deviations(worded, family):
    directions, items = planted(worded, family), protocol(worded, family, "dev", 3)
    meter = FluencyMeter(worded, BLOCK, ["the cat sat there", "one stone alone on a mountain"])
    reach = random_reach_at_kl(items, directions, meter, n_draws=8, kl_budget=0.3)
    effects = []
    for draw in range(-8, 0):  # tested are those from 0 on
        direction = random_direction(worded.hidden_size, directions.seed, draw)
        dose = dose_at_kl(lambda d, v=direction: meter.kl(v * d), 0.3, tolerance=0.05)
        answers = items.score(direction * dose).label_logprob.argmax(1)
        effects.append([(answers == i)[items.truth != i].mean() for i in range(len(items.labels))])
    expected = (np.mean(effects, 0) + 2 * np.std(effects, 0, ddof=1)).mean()
    assert expected > np.mean(effects)
    # both searches stop anywhere within 5 % of the price, which an answer may hang on
    assert reach == pytest.approx(expected, abs=0.05)
    with pytest.raises(FitError, match="draw at least 2"):
        random_reach_at_kl(items, directions, meter, n_draws=1)
