"""The emotion protocol on a tiny model in which the right directions are planted."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from contrans.concepts import contrast_sets
from contrans.concepts.contrast import family_of
from contrans.errors import FitError, TextError
from contrans.models import Model
from contrans.transplants import Transplant
from contrans.validation.arms import Directions, draw_of
from contrans.validation.comparison import validate
from contrans.validation.dosing import calibrate, dose_at_kl, mean_kl
from contrans.validation.emotion import EmotionProtocol, Scores
from contrans.validation.fluency import FluencyMeter
from contrans.validation.items import few_shot_prefix, sides
from tests.texts import write_family
from tests.tiny import tiny, tiny_model, tiny_tokenizer

BLOCK = 2


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return family_of(write_family(tmp_path_factory.mktemp("mood"))[0])


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("llama", max_position_embeddings=2048)


@pytest.fixture(scope="module")
def worded(family) -> Model:
    """A model whose tokenizer has a token for every label, as real ones do."""
    lines = [f"{e.prompt} {c.label}" for c in family for e in c.positives]
    tokenizer = tiny_tokenizer().train_new_from_iterator(lines, vocab_size=400)
    module = tiny_model("llama", vocab_size=len(tokenizer), max_position_embeddings=2048)
    return Model.wrap(module, tokenizer, reference="tiny-worded")


def protocol(model, family, split="test", per_label=3) -> EmotionProtocol:
    return EmotionProtocol(model, family, block=BLOCK, split=split, per_label=per_label)


def test_scores_equal_full_forwards_of_whole_words(model, family):
    """Labels here are many byte pairs long: the log-probability is that of the whole word."""
    p = protocol(model, family, per_label=1)
    shift = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(0))
    scores = p.score(shift)
    prefix = few_shot_prefix(family)
    for i in (0, 2):
        for j, label in enumerate(p.labels):
            stem = model.tokenizer(prefix + p.items[i].prompt)["input_ids"]
            ids = model.tokenizer(f"{prefix}{p.items[i].prompt} {label}")["input_ids"]
            with torch.inference_mode(), Transplant(model, {BLOCK: shift}):
                logp = model.module(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            expected = sum(float(logp[k - 1, ids[k]]) for k in range(len(stem), len(ids)))
            assert scores.label_logprob[i, j] == pytest.approx(expected, abs=2e-3)


def test_items_are_disjoint_from_the_few_shots_and_between_splits(model, family):
    test, dev = protocol(model, family, per_label=None), protocol(model, family, "dev", None)
    shots = few_shot_prefix(family)
    texts = {e.text for e in test.items}
    assert not texts & {e.text for e in dev.items}
    assert not any(f"{t}\n" in shots for t in texts)
    assert len(test.items) == sum(len(c.split("test").positives) for c in family)
    # every shot carries its own label
    for c in family:
        assert any(f"{e.prompt} {c.label}\n" in shots for e in c.split("refine").positives)


def test_selectivity_takes_off_what_a_disturbed_model_gives_to_every_label(model, family):
    """Of four labels: the share that names the concept less the mean share that names either other wrong one."""
    family = [*family, replace(family[0], concept="awe", label="awe", positives=family[0].negatives[:30])]
    p = protocol(model, family)
    n, n_labels = p.n_items, len(family)
    named = np.random.default_rng(0).integers(0, n_labels, n)
    scores = Scores(np.eye(n_labels)[named], named)
    for label, concept in enumerate(p.concepts):
        hit, counts = p.hits(scores, concept)["selectivity"]
        assert (counts == (p.truth != label)).all()
        for i in np.flatnonzero(counts):
            wrong = [k for k in range(n_labels) if k not in (label, p.truth[i])]
            assert hit[i] == pytest.approx((named[i] == label) - np.mean([named[i] == k for k in wrong]))


def test_two_labels_have_no_other_wrong_one(model, family):
    assert "selectivity" not in (p := protocol(model, family[:2])).hits(p.score(None), p.concepts[0])


def test_a_pair_is_read_from_what_the_unsteered_model_gives_to_either_label(model, family):
    pair = family[:2]
    p = protocol(model, pair, per_label=5)
    unsteered = p.score(None)
    np.testing.assert_allclose(p.label_bias, unsteered.label_logprob.mean(0))
    # a bias that is the same for every item changes no answer
    leaning = Scores(unsteered.label_logprob + np.array([0.0, 50.0]), unsteered.greedy_label)
    p.label_bias = leaning.label_logprob.mean(0)
    for concept, (first, second) in zip(p.concepts, [(0, 1), (1, 0)], strict=True):
        hits = p.hits(leaning, concept)
        gap = unsteered.label_logprob[:, first] - unsteered.label_logprob[:, second]
        np.testing.assert_array_equal(hits["logit_accuracy"][0], gap > gap.mean())
        np.testing.assert_allclose(hits["label_probability"][0], 1 / (1 + np.exp(gap.mean() - gap)))
        assert hits["uncalibrated_accuracy"][0].all() == (first == 1)
    assert not protocol(model, family).label_bias.any()


def planted(model, family) -> Directions:
    """For each label the gradient of its log-probability over the others': what moves the answer to it."""
    p = protocol(model, family)
    stem = few_shot_prefix(family) + p.items[0].prompt
    start = len(model.tokenizer(stem)["input_ids"])
    gradient = {}
    for concept, label in zip(p.concepts, p.labels, strict=True):
        delta = torch.zeros(model.hidden_size, requires_grad=True)
        handle = model.blocks[BLOCK].register_forward_hook(lambda _m, _a, out, delta=delta: out + delta)
        ids = model.tokenizer(f"{stem} {label}", return_tensors="pt")["input_ids"]
        logp = model.module(input_ids=ids).logits[0].log_softmax(-1)
        logp[torch.arange(start - 1, ids.shape[1] - 1), ids[0, start:]].sum().backward()
        handle.remove()
        assert delta.grad is not None
        gradient[concept] = delta.grad
    mean = torch.stack(list(gradient.values())).mean(0)
    own = {c: g - mean for c, g in gradient.items()}
    rest = {c: torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(i)) for i, c in enumerate(own)}
    return Directions({"transplanted": own, "own": own, "shuffled_map": rest}, residual_norm=5.0, seed=1)


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


def test_a_kl_budget_is_met_by_every_arm(worded, family):
    directions = planted(worded, family)
    meter = FluencyMeter(worded, BLOCK, ["the cat sat there", "one stone alone on a mountain"])
    arms = ["unsteered", "transplanted", "own", "random", "shuffled_map", "wrong_concept", "opposite"]
    found = calibrate(
        protocol(worded, family, "dev", 2), directions, arms=arms, select="kl", meter=meter, kl_budget=0.05
    )
    for arm in ("transplanted", "own", "random", "shuffled_map"):
        assert mean_kl(meter, directions, arm, found.doses[arm]) == pytest.approx(0.05, rel=0.021)
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


def test_the_concept_is_asked_for_in_words(worded, family):
    p = protocol(worded, family, "test", 1)
    scores = p.prompted("haste")
    label = p.labels[p.concepts.index("haste")]
    for i in (0, 2):
        text = f"{few_shot_prefix(family)}For the next scenario, answer {label}.\n\n{p.items[i].prompt}"
        ids = worded.tokenizer(text)["input_ids"]
        answer = worded.tokenizer(f"{text} {label}")["input_ids"][len(ids) :]
        with torch.inference_mode():
            logp = worded.module(input_ids=torch.tensor([[*ids, *answer]])).logits[0].log_softmax(-1)
        expected = sum(float(logp[len(ids) - 1 + k, t]) for k, t in enumerate(answer))
        assert scores.label_logprob[i, p.labels.index(label)] == pytest.approx(expected, abs=2e-3)
    directions = planted(worded, family)
    meter = FluencyMeter(worded, BLOCK, ["the cat sat there"])
    rows, summary = validate(
        p, directions, meter, arms=["unsteered", "transplanted", "prompt"], doses={"transplanted": 1.0}
    )
    asked = [r for r in rows if r.arm == "prompt"]
    assert {r.dose for r in asked} == {None}
    assert {r.metric for r in asked} >= {"logit_accuracy", "gain", "mcnemar_p_holm"}
    assert "prompt" in summary


def test_a_pair_of_opposites_is_a_family_of_two():
    civility = contrast_sets(["civility"])[0]
    one, other = sides(civility)
    assert (one.label, other.label) == ("polite", "rude")
    assert other.positives == civility.negatives
    with pytest.raises(TextError, match="has no pair of labels"):
        sides(contrast_sets(["honesty/persona"])[0])


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


def test_bad_input(model, family):
    with pytest.raises(TextError, match="at least two contrast sets with one template"):
        protocol(model, family[:1])
    with pytest.raises(TextError, match="at least two contrast sets with one template"):
        protocol(model, [*family, *contrast_sets(["civility"])])
