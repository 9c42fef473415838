"""Outcomes of items are kept whole, and two validations are told apart only where something changed."""

import json

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from contrans.errors import ContransError
from contrans.validation.drift import Change
from contrans.validation.drift import changes as changes_of
from contrans.validation.outcomes import Outcomes, paired

CONCEPTS = ["calm", "hurry", "doubt"]
ARM = "transplanted"


def outcomes(by_concept: dict[str, np.ndarray], items: list[str] | None = None) -> Outcomes:
    n = len(next(iter(by_concept.values())))
    return Outcomes("logit_accuracy", tuple(items or map(str, range(n))), {ARM: by_concept})


def changes(before: Outcomes, after: Outcomes, concepts: list[str], **settings: float) -> list[Change]:
    return changes_of({c: paired(before, after, ARM, c) for c in concepts}, **settings)


def night(rng: np.random.Generator, right: np.ndarray) -> Outcomes:
    """Answers that come out right with these probabilities [concepts, items]."""
    drawn = (rng.random(right.shape) < right).astype(float)
    return outcomes(dict(zip(CONCEPTS, drawn, strict=True)))


def test_outcomes_come_back_from_json_and_by_concept() -> None:
    counts = np.array([True, False, True])
    hits = {ARM: {"logit_accuracy": {"calm": (np.array([1.0, 1.0, 0.5]), counts)}, "token_accuracy": {}}}
    made = Outcomes.of("logit_accuracy", ["a", "b", "c"], hits)
    again = Outcomes.from_json(json.loads(json.dumps(made.to_json())))
    assert again.items == ("a", "b", "c")
    np.testing.assert_array_equal(again.arms[ARM]["calm"], [1.0, np.nan, 0.5])
    assert made.only("calm").arms.keys() == {ARM}
    assert made.only("fear").arms == {}


@pytest.mark.parametrize(
    "found",
    [None, [], {}, {"effect": "x", "items": ["a"], "arms": {"own": {"calm": [1, 0]}}}, {"effect": "x", "items": 3}],
)
def test_other_files_are_refused(found: object) -> None:
    with pytest.raises(ContransError, match=r"items\.json does not hold"):
        Outcomes.from_json(found)


def test_items_are_paired_by_name_and_only_where_both_count() -> None:
    first = outcomes({"calm": np.array([1.0, 0.0, np.nan, 1.0])}, ["a", "b", "c", "d"])
    second = outcomes({"calm": np.array([0.0, 1.0, 0.0, 1.0])}, ["d", "c", "b", "x"])
    before, after = paired(first, second, ARM, "calm")
    np.testing.assert_array_equal(before, [0.0, 1.0])  # b, d
    np.testing.assert_array_equal(after, [0.0, 0.0])
    with pytest.raises(ContransError, match="no item in common"):
        paired(first, outcomes({"calm": np.ones(1)}, ["z"]), ARM, "calm")
    with pytest.raises(ContransError, match="no outcomes of own on calm"):
        paired(first, second, "own", "calm")
    other = Outcomes("mc1", first.items, first.arms)
    with pytest.raises(ContransError, match="about logit_accuracy and the other about mc1"):
        paired(first, other, ARM, "calm")


def test_p_values_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    before, after = (outcomes({"calm": (rng.random(80) < p).astype(float)}) for p in (0.7, 0.5))
    [found] = changes(before, after, ["calm"])
    won = int(((before.arms[ARM]["calm"] == 0) & (after.arms[ARM]["calm"] == 1)).sum())
    lost = int(((before.arms[ARM]["calm"] == 1) & (after.arms[ARM]["calm"] == 0)).sum())
    assert found.p == pytest.approx(binomtest(won, won + lost).pvalue)
    # values that are no shares: of six items that all fall, 2 of 2⁶ choices of signs are as far off
    fell = outcomes({"calm": np.full(6, 0.25)}), outcomes({"calm": np.full(6, 0.125)})
    assert changes(*fell, ["calm"])[0].p == pytest.approx(2 / 64, abs=0.01)


def test_the_same_night_twice_is_never_flagged() -> None:
    same = night(np.random.default_rng(1), np.full((3, 50), 0.6))
    for change in changes(same, same, CONCEPTS):
        assert (change.verdict, change.p_holm, change.change, change.low, change.high) == ("unchanged", 1.0, 0, 0, 0)


def test_false_alarms_over_200_nights_stay_at_the_level() -> None:
    rng = np.random.default_rng(7)
    right = rng.uniform(0.1, 0.95, (3, 120))
    baseline = night(rng, right)
    alarms = sum(
        any(c.verdict != "unchanged" for c in changes(baseline, night(rng, right), CONCEPTS)) for _ in range(200)
    )
    # of 200 nights at 5 %, more than this happens once in a thousand
    assert alarms <= binom.ppf(0.999, 200, 0.05)


def test_a_loss_is_caught_and_named_and_the_rest_is_not() -> None:
    rng = np.random.default_rng(3)
    right = np.full((3, 200), 0.8)
    baseline = night(rng, right)
    right[1] = 0.6
    found = {c.name: c for c in changes(baseline, night(rng, right), CONCEPTS)}
    assert {c: found[c].verdict for c in found} == {"calm": "unchanged", "hurry": "worse", "doubt": "unchanged"}
    worse = found["hurry"]
    assert worse.low <= worse.change <= worse.high < 0
    assert worse.change == pytest.approx(worse.after - worse.before)
    assert worse.words.startswith("hurry: worse, 0.")
    assert found["hurry"].verdict != changes(baseline, night(rng, right), ["hurry"], margin=0.5)[0].verdict
