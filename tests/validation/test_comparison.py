"""Arms side by side on a tiny model in which the right directions are planted."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from contrans.transplants import Transplant
from contrans.validation.arms import Directions, draw_of
from contrans.validation.comparison import validate
from contrans.validation.dosing import calibrate
from contrans.validation.fluency import FluencyMeter
from contrans.validation.pricing import mean_kl
from tests.validation.moods import BLOCK, planted, protocol


def test_arms_tell_a_planted_direction_from_controls(worded, family):
    model = worded
    assert all(len(ids) == 1 for ids in protocol(model, family)._label_ids)
    directions = planted(model, family)
    arms = ["unsteered", "transplanted", "own", "random", "shuffled_map", "wrong_concept", "opposite", "paper"]
    calibration = calibrate(protocol(model, family, "dev"), directions, arms=arms, doses=[8.0, 0.2, 2.0])
    doses, curves = calibration.doses, calibration.rows
    assert set(doses) == {"transplanted", "own", "random", "shuffled_map", "wrong_concept", "opposite"}
    assert doses["random"] == doses["shuffled_map"] == doses["opposite"] == doses["transplanted"]
    assert {r.dose for r in curves if r.arm == "own"} == {0.2, 2.0, 8.0}
    meter = FluencyMeter(model, BLOCK, ["the cat sat there", "one stone alone on a mountain"])
    rows, summary = validate(protocol(model, family), directions, meter, arms=arms, doses=doses, random_draws=5, seed=3)
    value = {(r.concept, r.arm, r.metric): r for r in rows}
    assert value["all", "transplanted", "logit_accuracy"].value > value["all", "random", "logit_accuracy"].value + 0.2
    for r in rows:
        assert np.isfinite(r.value)
        assert (r.low is None) == (r.high is None)
        if r.low is not None and r.metric != "gain_recovered":
            assert r.low - 1e-9 <= r.value <= r.high + 1e-9
    assert summary["gain_recovered"]["value"] == pytest.approx(1.0)
    assert value["calm", "transplanted", "logit_accuracy"].n == 6
    # what serves every concept alike cannot be selective in the mean: no direction of chance is
    assert value["all", "unsteered", "selectivity"].value == pytest.approx(0, abs=1e-12)
    assert value["all", "random", "selectivity"].value == pytest.approx(0, abs=1e-12)
    assert value["all", "transplanted", "selectivity"].low > 0.2
    assert value["all", "wrong_concept", "selectivity"].high < 0
    # another concept's transplant at the same dose is this concept's wrong one
    assert value["all", "transplanted", "kl"].value > 0
    assert value["all", "opposite", "logit_accuracy"].value < value["all", "transplanted", "logit_accuracy"].value
    gain = value["all", "transplanted", "gain"]
    base, moved = (
        value["all", "unsteered", "logit_accuracy"].value,
        value["all", "transplanted", "logit_accuracy"].value,
    )
    assert gain.value == pytest.approx(moved - base)
    assert gain.low <= gain.value <= gain.high
    kl = value["all", "transplanted", "kl"].value
    assert summary["effect_per_kl/transplanted"]["value"] == pytest.approx(gain.value / kl)
    raw = [value[c.concept, "own", "mcnemar_p"].value for c in family]
    holm = [value[c.concept, "own", "mcnemar_p_holm"].value for c in family]
    assert all(a <= b <= 3 * a + 1e-12 for a, b in zip(raw, holm, strict=True))
    again, _ = validate(protocol(model, family), directions, meter, arms=arms, doses=doses, random_draws=5, seed=3)
    assert again == rows


def test_by_selectivity_all_that_is_judged_is_of_it_and_no_control_is_raised(worded, family):
    """Doses, gains, tests and p-values are of the selectivity, and no random direction has any in the mean."""
    directions, p = planted(worded, family), protocol(worded, family, effect="selectivity")
    arms = ["unsteered", "transplanted", "own", "random", "wrong_concept"]
    dev = calibrate(protocol(worded, family, "dev", effect="selectivity"), directions, arms=arms, doses=[2.0, 8.0])
    curve = {(r.arm, r.dose): r.value for r in dev.rows if (r.concept, r.metric) == ("all", "selectivity")}
    best = max(value for (arm, _), value in curve.items() if arm == "transplanted")
    assert curve["transplanted", dev.doses["transplanted"]] >= 0.95 * best
    meter = FluencyMeter(worded, BLOCK, ["the cat sat there"])
    rows, summary = validate(p, directions, meter, arms=arms, doses=dev.doses, random_draws=99)
    value = {(r.concept, r.arm, r.metric): r for r in rows}
    for arm in ("transplanted", "own"):
        gain, shared = value["all", arm, "gain"], value["all", arm, "selectivity"]
        assert gain.value == pytest.approx(shared.value - value["all", "unsteered", "selectivity"].value)
        assert gain.low > 0.2
        assert summary[arm]["value"] == shared.value
        assert all(value[c.concept, arm, "mcnemar_p"].n == p.n_items for c in family)
    assert summary["gain_recovered"]["value"] == pytest.approx(1.0)
    assert value["all", "random", "gain"].low <= 0 <= value["all", "random", "gain"].high
    assert value["all", "wrong_concept", "gain"].high < 0
    assert value["all", "transplanted", "random_p"].value == summary["random_p/transplanted"]["value"] <= 0.05
    # the accuracy stands beside it
    moved, base = (value["all", arm, "logit_accuracy"].value for arm in ("random", "unsteered"))
    assert value["all", "random", "logit_accuracy_gain"].value == pytest.approx(moved - base)


def test_random_draws_give_a_p_value(worded, family):
    directions = planted(worded, family)
    meter = FluencyMeter(worded, BLOCK, ["the cat sat there"])
    arms = ["unsteered", "transplanted", "random"]
    doses = {"transplanted": 2.0, "random": 2.0}
    p = protocol(worded, family, "test", 1)
    rows, _ = validate(p, directions, meter, arms=arms, doses=doses, random_draws=99)
    found = {r.concept: r for r in rows if r.metric == "random_p"}
    assert set(found) == {"all", *(c.concept for c in family)}
    assert 0.01 <= found["all"].value <= 0.1
    assert found["all"].n == 99
    scores = [p.score(directions.shift("random", "", 2.0, draw)) for draw in range(99)]
    shares = np.array(
        [[hit[counts].mean() for hit, counts in (p.hits(s, c)[p.effect] for c in p.concepts)] for s in scores]
    )
    moved = np.mean([r.value for r in rows if (r.arm, r.metric) == ("transplanted", p.effect) and r.concept != "all"])
    # another direction for each concept
    rivals = [np.mean([shares[(k + i) % 99, i] for i in range(len(p.concepts))]) for k in range(99)]
    assert found["all"].value == pytest.approx((1 + sum(r >= moved for r in rivals)) / 100)
    assert max(rivals) > shares.mean(1).max()


def test_a_control_of_many_draws_gives_their_mean_and_a_p_value(worded, family):
    directions = planted(worded, family)
    concepts = directions.concepts
    drawn = {
        draw_of("shuffled_map", k): {
            c: torch.randn(worded.hidden_size, generator=torch.Generator().manual_seed(100 * k + i))
            for i, c in enumerate(concepts)
        }
        for k in range(20)
    }
    every = replace(directions, by_arm={**directions.by_arm, **drawn})
    assert (every.n_draws("shuffled_map"), every.n_draws("own"), directions.n_draws("shuffled_map")) == (20, 1, 1)
    meter = FluencyMeter(worded, BLOCK, ["the cat sat there"])
    arms, doses = ["unsteered", "transplanted", "shuffled_map"], {"transplanted": 2.0, "shuffled_map": 2.0}
    p = protocol(worded, family, "test", 1)
    rows, summary = validate(p, every, meter, arms=arms, doses=doses)
    value = {(r.concept, r.arm, r.metric): r for r in rows}
    alone = []
    for k in range(20):
        one = replace(directions, by_arm={**directions.by_arm, "shuffled_map": drawn[draw_of("shuffled_map", k)]})
        of_one, _ = validate(p, one, meter, arms=arms, doses=doses)
        alone.append(next(r.value for r in of_one if (r.concept, r.arm, r.metric) == ("all", "shuffled_map", p.effect)))
    assert value["all", "shuffled_map", p.effect].value == pytest.approx(np.mean(alone))
    as_good = sum(v >= value["all", "transplanted", p.effect].value for v in alone)
    assert value["all", "transplanted", "shuffled_p"].value == pytest.approx((1 + as_good) / 21)
    assert summary["shuffled_p/transplanted"]["value"] == value["all", "transplanted", "shuffled_p"].value
    assert ("all", "shuffled_map", "mcnemar_p") not in value
    # each concept takes another draw where KL is measured
    kl = [meter.kl(every.shift("shuffled_map", c, 2.0, i)) for i, c in enumerate(concepts)]
    assert mean_kl(meter, every, "shuffled_map", 2.0) == pytest.approx(np.mean(kl))


def test_each_draw_of_a_control_is_put_in_at_its_own_dose(worded, family):
    directions, p = planted(worded, family), protocol(worded, family, "test", 1)
    meter = FluencyMeter(worded, BLOCK, ["the cat sat there"])
    arms, doses = ["unsteered", "transplanted", "random"], {"transplanted": 2.0, "random": 1.0}
    own = [0.5, 1.0, 3.0]
    rows, _ = validate(p, directions, meter, arms=arms, doses=doses, draw_doses={"random": own}, random_draws=3)
    value = {(r.concept, r.arm, r.metric): r for r in rows}
    expected = []
    for draw, dose in enumerate(own):
        scores = p.score(directions.shift("random", "", dose, draw))
        found = [p.hits(scores, c)["label_probability"] for c in p.concepts]
        expected.append([hit[counts].mean() for hit, counts in found])
    assert value["all", "random", "label_probability"].value == pytest.approx(np.mean(expected))
    assert value["all", "random", "label_probability"].dose == 1.0
    kl = [meter.kl(directions.shift("random", "", dose, draw)) for draw, dose in enumerate(own)]
    assert value["all", "random", "kl"].value == pytest.approx(np.mean(kl), rel=1e-4)


def test_items_that_lose_the_concept_are_counted(worded, family):
    directions, p = planted(worded, family), protocol(worded, family, "test")
    meter = FluencyMeter(worded, BLOCK, ["the cat sat there"])
    doses = {"transplanted": 2.0, "opposite": 2.0, "random": 0.3}
    rows, _ = validate(p, directions, meter, arms=["unsteered", *doses], doses=doses, random_draws=30)
    value = {(r.concept, r.arm): r for r in rows if r.metric == "moved_wrong_way"}
    for concept in p.concepts:
        before, after = (
            p.hits(p.score(shift), concept)["label_probability"]
            for shift in (None, directions.shift("transplanted", concept, 2.0))
        )
        expected = (after[0] < before[0])[before[1]].mean()
        assert value[concept, "transplanted"].value == expected
    assert value["all", "transplanted"].value < 0.2
    assert value["all", "opposite"].value > 0.8
    assert 0.3 < value["all", "random"].value < 0.7
    assert ("all", "unsteered") not in value


def test_gain_recovered_is_withheld_where_own_gains_nothing(model, family):
    nothing = {c.concept: torch.full((model.hidden_size,), 1e-9) for c in family}
    directions = Directions({"transplanted": nothing, "own": nothing}, residual_norm=1e-6)
    meter = FluencyMeter(model, BLOCK, ["the cat sat there"])
    arms = ["unsteered", "transplanted", "own"]
    rows, summary = validate(
        protocol(model, family), directions, meter, arms=arms, doses={"transplanted": 0.1, "own": 0.1}
    )
    assert summary["gain_recovered"]["value"] is None
    assert not [r for r in rows if r.metric == "gain_recovered"]


def test_fluency_against_full_forwards(model):
    texts = ["the cat sat there", "one stone alone on a mountain", "x y"]
    shift = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(5))
    cost = FluencyMeter(model, BLOCK, texts).measure(shift)
    kls, nll, base_nll = [], [], []
    for text in texts:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            base = model.module(input_ids=ids).logits[0].log_softmax(-1)
            with Transplant(model, {BLOCK: shift}):
                steered = model.module(input_ids=ids).logits[0].log_softmax(-1)
        kls += (base.exp() * (base - steered)).sum(-1)[1:].tolist()
        at = torch.arange(ids.shape[1] - 1)
        nll += (-steered[at, ids[0, 1:]]).tolist()
        base_nll += (-base[at, ids[0, 1:]]).tolist()
    assert cost.kl == pytest.approx(np.mean(kls), rel=2e-2)
    assert cost.perplexity_ratio == pytest.approx(np.exp(np.mean(nll) - np.mean(base_nll)), rel=1e-2)
    assert cost.kl_low <= cost.kl <= cost.kl_high
    assert cost.n_tokens == len(kls)
