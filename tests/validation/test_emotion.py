"""Which label a model names: the scores, the items, and what is made of the answers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from contrans.concepts import contrast_sets
from contrans.errors import SpecError, TextError
from contrans.transplants import Transplant
from contrans.validation.comparison import validate
from contrans.validation.drift import changes
from contrans.validation.emotion import Scores
from contrans.validation.fluency import FluencyMeter
from contrans.validation.items import few_shot_prefix, sides
from contrans.validation.outcomes import Outcomes, paired
from contrans.validation.rows import gain_rows, mcnemar_rows, rows_of
from contrans.validation.shares import mean_share, merged, once
from contrans.validation.statistics import wilson
from tests.validation.moods import BLOCK, planted, protocol


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


def shares(p, scores, concept):
    return {m: mean_share([hit], once(p.n_items)).item() for m, hit in p.hits(scores, concept).items()}


@pytest.mark.parametrize("n_labels", [2, 3])
def test_selectivity_is_what_a_label_gains_less_what_it_loses(model, family, n_labels):
    """The share of the others' scenarios that get the label, less the mean share of its own that each other gets."""
    p = protocol(model, family[:n_labels], per_label=None)
    named = np.random.default_rng(0).integers(0, n_labels, p.n_items)
    p.label_bias = np.zeros(n_labels)
    scores = Scores(np.eye(n_labels)[named], named, np.eye(n_labels)[named])
    for label, concept in enumerate(p.concepts):
        own = p.truth == label
        lost = [(named[own] == k).mean() for k in range(n_labels) if k != label]
        expected = (named[~own] == label).mean() - np.mean(lost)
        assert shares(p, scores, concept)["selectivity"] == pytest.approx(expected)
        hits = {"selectivity": {concept: p.hits(scores, concept)["selectivity"]}}
        (row, _) = rows_of(p, hits, "test", "random", 1.0, bootstrap=True)
        assert (row.value, row.n) == (pytest.approx(expected), p.n_items)
        # however items are resampled, it stays between its bounds
        assert -1 <= row.low <= row.value <= row.high <= 1


def test_a_disturbed_model_has_accuracy_and_no_selectivity(model, family):
    """Right answers first; then half of each label's scenarios get the others, as many each."""
    pair = family[:2]
    p = protocol(model, pair, per_label=4)
    p.label_bias = np.zeros(2)
    disturbed = np.where(np.arange(p.n_items) % 2, p.truth, 1 - p.truth)
    right, half = (shares(p, Scores(np.eye(2)[to], to, np.eye(2)[to]), p.concepts[0]) for to in (p.truth, disturbed))
    assert (right["logit_accuracy"], half["logit_accuracy"]) == (0, 0.5)
    assert right["selectivity"] == half["selectivity"] == pytest.approx(0)


@pytest.mark.parametrize("n_labels", [2, 3])
def test_by_selectivity_an_item_counts_as_one_answer_named_or_not(model, family, n_labels):
    """Interval, McNemar and what is kept of each item, against counts of answers made by hand."""
    p = protocol(model, family[:n_labels], per_label=6, effect="selectivity")
    p.label_bias = np.zeros(n_labels)
    rng = np.random.default_rng(1)
    named = {arm: rng.integers(0, n_labels, p.n_items) for arm in ("unsteered", "own")}
    # one label is never missed, so that all values of its items are 0 or 1
    named = {arm: np.where(p.truth == 0, 0, answers) for arm, answers in named.items()}
    found = {
        arm: merged([{c: p.hits(Scores(np.eye(n_labels)[to], to, np.eye(n_labels)[to]), c) for c in p.concepts}])
        for arm, to in named.items()
    }
    assert next(iter(found["own"])) == p.effect == "selectivity"
    rows = mcnemar_rows(p, found, "own", 1.0)
    tested = {r.concept: r for r in rows if r.metric == "mcnemar_p"}
    kept = Outcomes.of(p.effect, [str(i) for i in range(p.n_items)], found)
    gains = {r.concept: r for r in gain_rows(p, found, "own", 1.0) if r.metric == "gain"}
    shown = {r.concept: r for r in rows_of(p, found["own"], "test", "own", 1.0, bootstrap=True) if r.metric == p.effect}
    for label, concept in enumerate(p.concepts):
        before, after = (answers == label for answers in named.values())
        won, lost = int((after & ~before).sum()), int((before & ~after).sum())
        assert tested[concept].value == pytest.approx(binomtest(won, won + lost).pvalue)
        assert (tested[concept].n, gains[concept].n, shown[concept].n) == (p.n_items,) * 3
        # each item's own value, of which the mean is the effect
        first, second = paired(kept, kept, "own", concept)
        assert len(first) == p.n_items
        np.testing.assert_array_equal(first, second)
        assert first.mean() == pytest.approx(shown[concept].value)
        assert changes({concept: paired(kept, kept, "own", concept)})[0].verdict == "unchanged"
        change = kept.arms["own"][concept] - kept.arms["unsteered"][concept]
        assert change.mean() == pytest.approx(gains[concept].value)
        # no share of one kind of items: Wilson's interval would be too narrow
        share = wilson(round(shown[concept].value * p.n_items), p.n_items) if label == 0 else None
        assert share is None or (shown[concept].low, shown[concept].high) != (share.low, share.high)
    assert {r.metric for r in gain_rows(p, found, "own", 1.0)} == {"gain", "logit_accuracy_gain"}


def test_the_unsteered_answers_that_a_pair_is_read_from_are_not_asked_for_again(model, family, monkeypatch):
    p = protocol(model, family[:2])
    expected, shift = p.score(None), torch.ones(model.hidden_size)
    asked = []
    monkeypatch.setattr(
        p, "_scores", lambda _rows, shifts: asked.append(len(shifts)) or [Scores(*[np.zeros(1)] * 3)] * len(shifts)
    )
    first, second, third = p.score_many([None, shift, None])
    assert (first, third) == (expected, expected)
    assert second is not expected
    assert asked == [1]


def test_the_first_tokens_are_compared_beside_whole_words(worded, family):
    twice = [replace(c, label=f"{c.label} {c.label}") for c in family]
    p = protocol(worded, twice, per_label=2)
    assert {len(ids) for ids in p._label_ids} == {2}
    scores = p.score(None)
    stem = worded.tokenizer(few_shot_prefix(twice) + p.items[1].prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logp = worded.module(input_ids=stem).logits[0, -1].log_softmax(-1)
    first = [float(logp[ids[0]]) for ids in p._label_ids]
    np.testing.assert_allclose(scores.first_logprob[1], first, atol=2e-3)
    for label, concept in enumerate(p.concepts):
        hit, counts = p.hits(scores, concept)["first_token_accuracy"]
        np.testing.assert_array_equal(hit, scores.first_logprob.argmax(1) == label)
        np.testing.assert_array_equal(counts, p.truth != label)
    # where a label is one token, the two are the same
    single = protocol(worded, family)
    assert "first_token_accuracy" not in single.hits(single.score(None), "calm")


def test_labels_that_begin_alike_are_compared_as_whole_words(model, family, caplog):
    alike = [replace(c, label=label) for c, label in zip(family, ("quiet one", "quiet two", "loud"), strict=True)]
    p = protocol(model, alike)
    assert "begin with the same token" in caplog.text
    assert "first_token_accuracy" not in p.hits(p.score(None), p.concepts[0])
    beginning = [replace(family[0], label="quiet"), replace(family[1], label="quiet one"), family[2]]
    with pytest.raises(TextError, match="'quiet one' begins with all tokens of 'quiet', so it can never"):
        protocol(model, beginning)
    # a pair is read from its means, from which either may be the likelier
    pair = protocol(model, beginning[:2])
    answers = pair.hits(pair.score(None), pair.concepts[1])["logit_accuracy_positives"][0]
    assert set(answers) == {0.0, 1.0}


def test_a_pair_is_read_from_what_the_unsteered_model_gives_to_either_label(model, family):
    pair = family[:2]
    p = protocol(model, pair, per_label=5)
    unsteered = p.score(None)
    np.testing.assert_allclose(p.label_bias, unsteered.label_logprob.mean(0))
    # a bias that is the same for every item changes no answer
    leaning = replace(unsteered, label_logprob=unsteered.label_logprob + np.array([0.0, 50.0]))
    p.label_bias = leaning.label_logprob.mean(0)
    for concept, (first, second) in zip(p.concepts, [(0, 1), (1, 0)], strict=True):
        hits = p.hits(leaning, concept)
        gap = unsteered.label_logprob[:, first] - unsteered.label_logprob[:, second]
        np.testing.assert_array_equal(hits["logit_accuracy"][0], gap > gap.mean())
        np.testing.assert_allclose(hits["label_probability"][0], 1 / (1 + np.exp(gap.mean() - gap)))
        assert hits["uncalibrated_accuracy"][0].all() == (first == 1)
    assert not protocol(model, family).label_bias.any()


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


def test_bad_input(model, family):
    with pytest.raises(TextError, match="at least two contrast sets with one template"):
        protocol(model, family[:1])
    with pytest.raises(TextError, match="at least two contrast sets with one template"):
        protocol(model, [*family, *contrast_sets(["civility"])])
    with pytest.raises(SpecError, match="no effect 'accuracy'; use one of logit_accuracy, selectivity"):
        protocol(model, family, effect="accuracy")
