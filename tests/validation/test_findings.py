"""Every failure signature at its threshold, and in a document that shows it and nothing else."""

import pytest

from contrans.errors import ArtifactError
from contrans.states import pairing
from contrans.validation import signatures
from contrans.validation.findings import (
    Finding,
    below_chance,
    concept_absent,
    control_does_as_well,
    corpus_does_not_cover,
    degenerate_text,
    dose_at_edge,
    findings_of,
    not_significant,
    own_gains_nothing,
    rows_near_dimension,
    side_effect,
    table_findings,
    tokenizers_unlike,
    unsafe_safety,
    wrong_way,
)
from contrans.validation.row_table import RowTable
from contrans.validation.significance import compare, comparisons
from tests.results import CONCEPTS, STRENGTH, document, effect, emotion_rows, row, share


@pytest.mark.parametrize(
    ("found", "code", "severity", "words"),
    [
        (concept_absent("fear", 1.0, 0.8), None, None, ""),
        (concept_absent("fear", 0.99, 0.1), "concept_absent", "failure", "hardly holds fear"),
        (concept_absent("fear", 1.5, 0.79), "vector_unsteady", "warning", "cosine 0.79"),
        (corpus_does_not_cover(0.5), None, None, ""),
        (corpus_does_not_cover(0.49, "fear"), "corpus_does_not_cover", "warning", "cover fear: 49 %"),
        (tokenizers_unlike(0.67), None, None, ""),
        (tokenizers_unlike(0.66), "tokenizers_unlike", "warning", "66 %"),
        (tokenizers_unlike(0.24), "tokenizers_unlike", "warning", "24 %"),
        (tokenizers_unlike(0.23), "tokenizers_unlike", "failure", "too unlike"),
        (rows_near_dimension(6000, 576), None, None, ""),
        (rows_near_dimension(600, 576, "ridge"), "few_rows", "note", "5,760"),
        (rows_near_dimension(600, 576, "paper"), "rows_near_dimension", "warning", "error peaks"),
        (rows_near_dimension(864, 576, "lstsq"), "few_rows", "note", "1.5 for each"),
        (degenerate_text("transplanted", perplexity_ratio=10.0), None, None, ""),
        (degenerate_text("transplanted", perplexity_ratio=10.1), "degenerate_text", "failure", "10.10 ×"),
        (degenerate_text("own", repetition=0.51), "degenerate_text", "warning", "51 %"),
        (degenerate_text("random", degenerate=0.9), "degenerate_text", "note", "proves little"),
        (degenerate_text("own", distinct_2=0.31), None, None, ""),
        (degenerate_text("own", distinct_2=0.29), "degenerate_text", "warning", "29 %"),
        # short texts of the unsteered model have few pairs too
        (degenerate_text("own", distinct_2=0.29, base_distinct_2=0.5), None, None, ""),
        (degenerate_text("own", distinct_2=0.4, base_distinct_2=0.9), "degenerate_text", "warning", "40 %"),
        (below_chance("mc1", 0.226, 0.226), None, None, ""),
        (below_chance("mc1", 0.2, 0.226), "below_chance", "warning", "at most 20 %, guessing scores 23 %"),
        (unsafe_safety("own", empty=0.1, copied=0.09), None, None, ""),
        (unsafe_safety("own", empty=0.1, copied=0.1), "unsafe_safety", "warning", "10 % of the continuations"),
        (unsafe_safety("transplanted", empty=0.6), "unsafe_safety", "failure", "60 %"),
        (not_significant("mc1", []), None, None, ""),
        (
            not_significant("mc1", ["a", "b"], 200),
            "not_significant",
            "warning",
            "a and b. n=200 sees differences of ±7",
        ),
        (not_significant("mc1", ["a"]), "not_significant", "warning", "for a. Score more items"),
        (wrong_way("mc1", []), None, None, ""),
        (wrong_way("mc1", ["a"]), "wrong_way", "failure", "instead of raising"),
        (control_does_as_well(0.5, []), None, None, ""),
        (control_does_as_well(0.5, ["random (0.40)"]), "control_does_as_well", "failure", "random (0.40) does as"),
        (own_gains_nothing([]), None, None, ""),
        (own_gains_nothing(["fear"]), "own_gains_nothing", "warning", "for fear"),
        (dose_at_edge("own", 0.2, [0.1, 0.3]), None, None, ""),
        (dose_at_edge("own", 0.3, [0.3]), None, None, ""),
        (dose_at_edge("own", 0.3, [0.1, 0.3]), "dose_at_edge", "note", "0.3, is the largest"),
        (side_effect("perplexity", []), None, None, ""),
        (side_effect("perplexity", ["x goes from 1 to 2"]), "side_effect", "warning", "costs the target perplexity"),
    ],
)
def test_thresholds(found: Finding | None, code, severity, words):
    assert (found and found.code, found and found.severity) == (code, severity)
    if found is not None:
        assert words in found.sentence
        # what is wrong, and what to do
        assert found.sentence.count(". ") >= 1
        assert found.sentence.endswith(".")
        assert found.to_json() == {"code": code, "severity": severity, "sentence": found.sentence}


def codes(**more) -> list[str]:
    return [f.code for f in findings_of(document(**more))]


def changed(arm: str, metric: str, concept: str | None = None, **values) -> list[dict]:
    """The rows of an emotion run, with other values in the test rows of one arm and metric."""
    found = []
    for r in emotion_rows():
        same = (r["arm"], r["metric"], r["split"]) == (arm, metric, "test") and concept in (None, r["concept"])
        found.append({**r, **values} if same else r)
    return found


def test_a_run_in_which_all_is_well_has_a_note_on_its_random_arm():
    """Its random directions cost 12 nats, so that their perplexity ratio is enormous."""
    assert codes() == ["degenerate_text"]
    assert findings_of(document())[0].severity == "note"


def test_an_empty_document_is_not_judged():
    assert findings_of({}) == []
    assert findings_of({"validations": [], "map": None, "diagnostics": None}) == []


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"diagnostics": {"fear": {"d_prime": 0.4, "split_half_cosine": 0.9, "auc": 0.6}}}, "concept_absent"),
        ({"diagnostics": {"fear": {"d_prime": 2.0, "split_half_cosine": 0.5}}}, "vector_unsteady"),
        ({"map": {"survival": 0.3}}, "corpus_does_not_cover"),
        ({"map": {"survival": {"anger": 0.9, "fear": 0.3}}}, "corpus_does_not_cover"),
        ({"match_rate": 0.5}, "tokenizers_unlike"),
        ({"rows_fitted": 600, "source_width": 576, "map": {"estimator": "paper"}}, "rows_near_dimension"),
        ({"rows_fitted": 600, "source_width": 576}, "few_rows"),
        ({"summary": {"gain_recovered": {"value": None, "low": None, "high": None}}}, "own_gains_nothing"),
        ({"chance": {"logit_accuracy": 1 / 6}}, "below_chance"),
        ({"rows": emotion_rows(test_dose=0.5)}, "dose_at_edge"),
        ({"rows": emotion_rows(p=0.4)}, "not_significant"),
        ({"rows": changed("transplanted", "logit_accuracy", "all", value=0.01, low=0.0, high=0.03)}, "wrong_way"),
        ({"rows": changed("shuffled_map", "logit_accuracy", value=0.6, low=0.55, high=0.65)}, "control_does_as_well"),
        ({"rows": changed("own", "logit_accuracy", "all", value=0.1, low=0.08, high=0.13)}, "own_gains_nothing"),
        ({"rows": [*emotion_rows(), row("all", "own", "copied", 0.3)]}, "unsafe_safety"),
        ({"rows": [*emotion_rows(), row("all", "transplanted", "distinct_2", 0.1)]}, "degenerate_text"),
    ],
)
def test_a_document_that_shows_one_signature(more, code):
    # the note on the random arm is always there
    assert set(codes(**more)) == {code, "degenerate_text"}


@pytest.mark.parametrize(
    ("gain", "selectivity", "expected"),
    [
        ((0.01, -0.01, 0.03), None, []),
        ((0.05, 0.02, 0.08), None, [("warning", "So much of the effect is not the concept's own")]),
        ((0.05, 0.02, 0.08), (0.0, -0.01, 0.01), [("note", "does not raise the selectivity (0.00 [-0.01, 0.01])")]),
        ((0.05, 0.02, 0.08), (0.04, 0.03, 0.05), [("warning", "raises logit accuracy too, by 0.05 [0.02, 0.08]")]),
        ((0.05, 0.02, 0.08), None, [("warning", "by itself 30 % of its draws would pass for significant")]),
    ],
)
def test_a_control_that_moves_the_effect_is_named_with_what_of_it_is_disturbance(gain, selectivity, expected):
    rows = [*emotion_rows(), row("all", "shuffled_map", "gain", gain[0], low=gain[1], high=gain[2])]
    rows.append(row("all", "shuffled_map", "false_alarms", 0.3, low=0.2, high=0.4))
    if selectivity:
        value, low, high = selectivity
        rows.append(row("all", "shuffled_map", "selectivity_gain", value, low=low, high=high))
    found = [f for f in findings_of(document(rows)) if f.code == "control_moves"]
    assert [f.severity for f in found] == [severity for severity, _ in expected]
    assert all(words in f.sentence for f, (_, words) in zip(found, expected, strict=True))


def test_by_selectivity_all_that_a_control_moves_counts_and_power_is_that_of_the_others_scenarios():
    rows = [{**r, "metric": "selectivity", "n": 180} for r in emotion_rows(p=0.4) if r["metric"] == "logit_accuracy"]
    rows += [*emotion_rows(p=0.4), row("all", "shuffled_map", "gain", 0.05, low=0.02, high=0.08)]
    rows.append(row("all", "shuffled_map", "logit_accuracy_gain", 0.05, low=0.02, high=0.08))
    found = {f.code: f for f in findings_of({**document(rows), "effects": {"emotion": "selectivity"}})}
    assert found["control_moves"].severity == "warning"
    assert "raises selectivity too, by 0.05" in found["control_moves"].sentence
    assert "n=150 sees differences of ±8 points" in found["not_significant"].sentence


def test_failures_come_first_and_nothing_is_said_twice():
    found = findings_of(document(match_rate=0.1, rows=[*emotion_rows(p=0.4), row("all", "own", "empty", 0.3)]))
    assert [f.severity for f in found] == sorted((f.severity for f in found), key=["failure", "warning", "note"].index)
    assert len(set(found)) == len(found)


def test_concepts_that_are_not_significant_are_named_with_their_p_values_and_power():
    rows = [r for r in emotion_rows() if (r["arm"], r["metric"]) != ("transplanted", "mcnemar_p")]
    p = {"anger": 0.001, "fear": 0.03, "sadness": 0.2}
    rows += [row(c, "transplanted", "mcnemar_p", p[c]) for c in CONCEPTS]
    said = next(f.sentence for f in findings_of(document(rows)) if f.code == "not_significant")
    # .03 alone would pass: Holm makes it 2 × .03
    assert "for fear (p = 0.060) and sadness (p = 0.20). n=150 sees differences of ±8 points" in said


def test_a_change_is_judged_by_the_paired_gain_before_overlapping_intervals():
    rows = changed("transplanted", "logit_accuracy", "all", value=0.15, low=0.12, high=0.19)
    table = RowTable.of(rows)
    found = compare(table, "transplanted", "all")
    assert found is not None
    assert (found.significant, found.words) == (False, "not significant")
    table = RowTable.of([*rows, row("all", "transplanted", "gain", 0.05, low=0.02, high=0.08)])
    found = compare(table, "transplanted", "all")
    assert found is not None
    assert (found.higher, found.words) == (True, "higher")


def test_random_directions_by_their_p_value():
    rows = [
        *emotion_rows(),
        *(row(c, "transplanted", "random_p", p) for c, p in zip(CONCEPTS, (0.01, 0.01, 0.3), strict=True)),
    ]
    rows.append(row("all", "transplanted", "random_p", 0.04))
    found = {c.concept: c for c in comparisons(RowTable.of(rows), "transplanted", against="random")}
    assert found["anger"].words == "higher (p = 0.030)"
    assert found["sadness"].words == "not significant (p = 0.30)"
    # the mean over concepts is no member of the family
    assert found["all"].p_holm == 0.04
    assert found["anger"].change == pytest.approx(effect("transplanted", 0.2) - effect("random", 0.2), abs=0.01)


def test_draws_too_few_for_any_arm_are_not_called_a_failure():
    """24 maps of shuffled rows show p = .04 at least, which Holm makes .12 for three concepts."""
    rows = [*emotion_rows(), *(row(c, "transplanted", "shuffled_p", 0.04, n=24) for c in (*CONCEPTS, "all"))]
    found = {c.concept: c for c in comparisons(RowTable.of(rows), "transplanted", against="shuffled_map")}
    assert found["anger"].words == "too few draws (p = 0.12)"
    assert found["anger"].significant is None
    assert found["all"].words == "higher (p = 0.040)"


@pytest.mark.parametrize(("p", "found"), [(0.01, []), (0.2, ["control_does_as_well"])])
def test_random_directions_of_wide_spread_do_as_well_whatever_their_mean(p, found):
    rows = [*emotion_rows(), row("all", "transplanted", "random_p", p)]
    assert [c for c in codes(rows=rows) if c != "degenerate_text"] == found


def test_a_value_without_interval_is_not_judged():
    table = RowTable.of([row("honesty", "unsteered", "mc2", 0.3), row("honesty", "transplanted", "mc2", 0.5)])
    found = compare(table, "transplanted", "honesty")
    assert found is not None
    assert found.words == "no interval"
    assert table_findings(table) == []
    assert compare(table, "own", "honesty") is None


def test_other_protocols_may_not_change():
    """No change of perplexity is what one hopes for; a worse one is a side effect."""
    rows = [
        row("all", "unsteered", "negative_nll_per_byte", -0.7, low=-0.72, high=-0.68, protocol="perplexity"),
        row("all", "transplanted", "negative_nll_per_byte", -0.71, low=-0.73, high=-0.69, protocol="perplexity"),
    ]
    assert codes(rows=rows) == []
    worse = [rows[0], {**rows[1], "value": -0.9, "low": -0.95, "high": -0.85}]
    found = findings_of(document(worse))
    assert [f.code for f in found] == ["side_effect"]
    assert "negative nll per byte goes from -0.70 to -0.90" in found[0].sentence


def test_a_capability_is_judged_task_by_task_after_holm():
    rows = []
    for task, after, p in (("arc_easy", 0.3, 0.001), ("piqa", 0.58, 0.06)):
        rows.append(share(task, "unsteered", "acc", 0.6, 400, protocol="capability"))
        rows.append(share(task, "transplanted", "acc", after, 400, protocol="capability"))
        rows.append(row(task, "transplanted", "mcnemar_p", p, protocol="capability"))
    found = findings_of(document(rows))
    assert [f.code for f in found] == ["side_effect"]
    assert "acc of arc_easy goes from 0.60 to 0.30. Lower" in found[0].sentence


def test_several_protocols_in_one_document():
    perplexity = row("all", "unsteered", "negative_nll_per_byte", -0.7, protocol="perplexity")
    truth = [
        share("honesty", "unsteered", "mc1", 0.18, 400, protocol="truthfulqa"),
        share("honesty", "transplanted", "mc1", 0.20, 400, protocol="truthfulqa"),
    ]
    found = findings_of(document([*emotion_rows(), perplexity, *truth], chance={"mc1": 0.226}))
    assert [f.code for f in found] == ["not_significant", "below_chance", "degenerate_text"]
    assert "change of mc1 for honesty (by its interval)" in found[0].sentence


def test_the_effect_is_the_first_metric_or_the_one_that_is_named():
    rows = emotion_rows()
    assert RowTable.of(rows).effect == "logit_accuracy"
    assert RowTable.of(rows, effect="token_accuracy").metrics() == ["token_accuracy", "logit_accuracy"]
    said = findings_of(document(emotion_rows(p=0.4), effects={"emotion": "token_accuracy"}))
    assert any("change of token accuracy" in f.sentence for f in said)


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        ([], {}, "no rows for the protocol"),
        (emotion_rows(), {"protocol": "toxicity"}, "'toxicity'; there are \\['emotion'\\]"),
        (emotion_rows(), {"effect": "mc1"}, "no rows of mc1"),
        ([{"protocol": "emotion"}], {}, "lacks arm, concept"),
        ([*emotion_rows(), row("all", "own", "mc1", 0.3, protocol="truthfulqa")], {}, "emotion, truthfulqa; name"),
        ([row("all", "own", "kl", 0.3)], {}, "no rows for the protocol"),
    ],
)
def test_rows_that_cannot_be_read(rows, more, message):
    with pytest.raises(ArtifactError, match=message):
        RowTable.of(rows, **more)


def test_costs_are_found_at_their_dose_and_the_wrong_concept_borrows_the_transplants():
    table = RowTable.of(emotion_rows())
    cost = table.cost("own", 0.2)
    assert cost is not None
    assert cost["value"] == pytest.approx(13 * 0.04)
    # of the two rows at that dose the one of the test has an interval
    assert (cost["split"], cost["low"]) == ("generic", 0.9 * cost["value"])
    # no concept of its own has been measured, so that of the mean counts
    assert table.cost("own", 0.2, concept="fear") == cost
    assert table.cost("wrong_concept", 0.3) == table.cost("transplanted", 0.3)
    assert table.cost("own", 0.21) is None
    assert table.cost("unsteered", None) is None
    assert [d for d, _, _ in table.curve_by_kl("random")] == [0.05, 0.1, 0.2, 0.3, 0.5]
    assert table.arms() == ["unsteered", *STRENGTH]


def test_match_rates_are_judged_as_pairing_judges_them():
    assert (signatures.MIN_MATCH_RATE, signatures.STRANGERS) == (pairing.FEW, pairing.HARDLY_ANY)
