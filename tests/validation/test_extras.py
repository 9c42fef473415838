"""Rows of perplexity and capability against what the library and plain NumPy say of the same documents and items."""

import numpy as np
import pytest
import torch

from contrans.errors import SpecError
from contrans.models import Model
from contrans.report.evidence import Evidence
from contrans.validation.arms import Directions
from contrans.validation.capability import CapabilityRow
from contrans.validation.extras import capability_rows, perplexity_rows
from contrans.validation.perplexity import PerplexityProtocol, rolling_nll
from contrans.validation.rows import Row
from contrans.validation.statistics import cluster_bootstrap, mcnemar, wilson
from tests.tiny import tiny

BLOCK = 2
DOSES = {"transplanted": 0.4, "own": 0.2}
DOCUMENTS = ["the cat and the other cat sat there", "one stone alone on a mountain", "lemons from London and Rome"]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("llama")


@pytest.fixture(scope="module")
def directions(model: Model) -> Directions:
    draw = torch.Generator().manual_seed(0)
    by_arm = {
        arm: {c: torch.randn(model.hidden_size, generator=draw) for c in ("calm", "haste")}
        for arm in ("transplanted", "own")
    }
    return Directions(by_arm, 5.0)


def measured(model: Model, documents: list[str], directions: Directions) -> list[Row]:
    protocol = PerplexityProtocol(model, documents, block=BLOCK, concepts=directions.concepts)
    return perplexity_rows(protocol, directions, arms=["transplanted", "own"], doses=DOSES, seed=1)


def one(rows: list[Row], concept: str, arm: str, metric: str) -> Row:
    (found,) = [r for r in rows if (r.concept, r.arm, r.metric) == (concept, arm, metric)]
    return found


def test_perplexity_of_every_arm_and_concept_equals_full_passes(model, directions):
    rows = measured(model, DOCUMENTS, directions)
    plain = rolling_nll(model, DOCUMENTS)
    assert {r.arm for r in rows} == {"unsteered", "transplanted", "own"}
    assert {(r.protocol, r.split) for r in rows} == {("perplexity", "test")}
    ratios = []
    for concept in directions.concepts:
        for arm, dose in DOSES.items():
            shift = directions.shift(arm, concept, dose)
            steered = rolling_nll(model, DOCUMENTS, shifts={BLOCK: shift})
            ratio = one(rows, concept, arm, "word_perplexity_ratio")
            expected = steered.ratio_to(plain, seed=1)
            assert (ratio.value, ratio.low, ratio.high) == pytest.approx(
                (expected.value, expected.low, expected.high), rel=1e-3
            )
            assert ratio.dose == dose
            change = (plain.document_nll - steered.document_nll) / plain.n_bytes
            gain = one(rows, concept, arm, "gain")
            assert gain.value == pytest.approx(change.mean(), abs=1e-4)
            assert gain.low <= gain.value <= gain.high  # type: ignore[operator]
            if arm == "own":
                ratios.append(expected.value)
    assert one(rows, "all", "own", "word_perplexity_ratio").value == pytest.approx(np.mean(ratios), rel=1e-3)
    assert one(rows, "all", "unsteered", "word_perplexity").value == pytest.approx(plain.word_perplexity, rel=1e-3)
    assert one(rows, "calm", "unsteered", "bits_per_byte").dose is None
    assert not [r for r in rows if r.arm == "unsteered" and r.metric in ("gain", "word_perplexity_ratio")]


def test_a_large_dose_is_a_side_effect_in_the_findings(model, directions):
    to_b = model.module.get_output_embeddings().weight[model.tokenizer.convert_tokens_to_ids("b")]
    strong = Directions({arm: dict.fromkeys(of, to_b) for arm, of in directions.by_arm.items()}, 1e4)
    evidence = Evidence.of(measured(model, DOCUMENTS * 3, strong))
    assert evidence.results.effect == "negative_nll_per_byte"
    assert [f.code for f in evidence.findings] == ["side_effect"]
    assert "costs the target perplexity" in evidence.findings[0].sentence
    assert evidence.figure().startswith(b"\x89PNG")


def test_one_document_has_values_but_no_intervals(model, directions):
    rows = measured(model, DOCUMENTS[:1], directions)
    assert rows
    assert all(r.low is None and r.high is None for r in rows)


def run(task: str, metric: str, items: list[float], *, value: float | None = None, better: bool = True, n: int = 0):
    mean = float(np.mean(items)) if items else 0.0
    named = {str(i): float(v) for i, v in enumerate(items)}
    return CapabilityRow(task, metric, mean if value is None else value, None, n or len(items), named, better)


BEFORE = [1.0] * 12 + [0.0] * 4
AFTER = {"calm": [1.0] * 6 + [0.0] * 10, "haste": [1.0] * 2 + [0.0] * 14}


def test_one_concept_has_exact_p_values_and_paired_intervals():
    rows = capability_rows([run("sums", "acc", BEFORE)], {"calm": [run("sums", "acc", AFTER["calm"])]}, dose=0.3)
    for arm, items in (("unsteered", BEFORE), ("transplanted", AFTER["calm"])):
        share = wilson(int(sum(items)), 16)
        for metric in ("score", "acc"):
            found = one(rows, "sums", arm, metric)
            assert (found.value, found.low, found.high, found.n) == (share.value, share.low, share.high, 16)
            assert found.dose == (None if arm == "unsteered" else 0.3)
    p = mcnemar(np.array(BEFORE) == 1, np.array(AFTER["calm"]) == 1)
    assert one(rows, "sums", "transplanted", "mcnemar_p").value == p == pytest.approx(2 / 64)
    difference = np.array(AFTER["calm"]) - np.array(BEFORE)
    gain = one(rows, "sums", "transplanted", "gain")
    low, high = cluster_bootstrap(lambda w: w @ difference / w.sum(1), 16, seed=0)
    assert (gain.value, gain.low, gain.high) == (-0.375, low, high)
    assert [f.code for f in Evidence.of(rows).findings] == ["side_effect"]


def test_several_concepts_are_averaged_item_by_item_and_told_apart():
    steered = {c: [run("sums", "acc", items)] for c, items in AFTER.items()}
    rows = capability_rows([run("sums", "acc", BEFORE)], steered, dose=0.3, seed=4)
    mean = (np.array(AFTER["calm"]) + np.array(AFTER["haste"])) / 2
    found = one(rows, "sums", "transplanted", "score")
    half = 1.959964 * mean.std(ddof=1) / 4
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25 - half, 0.25 + half))
    assert one(rows, "sums", "transplanted", "score/calm").value == 6 / 16
    assert one(rows, "sums", "transplanted", "score/haste").value == 2 / 16
    gain = one(rows, "sums", "transplanted", "gain")
    difference = mean - np.array(BEFORE)
    assert gain.value == pytest.approx(difference.mean())
    ends = cluster_bootstrap(lambda w: w @ difference / w.sum(1), 16, seed=4)
    assert (gain.low, gain.high) == pytest.approx(ends)
    assert not [r for r in rows if r.metric.startswith("mcnemar")]


def test_the_score_is_the_first_metric_of_which_more_is_better():
    rows = [run("mixed", "loss", [3.0, 5.0], better=False), run("mixed", "acc", [1.0, 0.0])]
    worse = [run("mixed", "loss", [2.0, 5.0], better=False), run("mixed", "acc", [0.0, 0.0])]
    found = capability_rows(rows, {"calm": worse}, dose=0.3)
    assert one(found, "mixed", "unsteered", "score").value == 0.5
    assert one(found, "mixed", "transplanted", "loss").value == 3.5
    lost = capability_rows(rows[:1], {"calm": [run("mixed", "loss", [8.0, 9.0], better=False)]}, dose=0.3)
    assert one(lost, "mixed", "unsteered", "score").value == -4.0
    gain = one(lost, "mixed", "transplanted", "gain")
    assert (gain.value, gain.low, gain.high) == (-4.5, -5.0, -4.0)


def test_values_that_are_no_means_and_groups_have_no_intervals():
    before = [run("f1", "f1", [0, 1, 1], value=0.7), run("group", "acc", [], value=0.5, n=40)]
    after = [run("f1", "f1", [1, 1, 1], value=0.9), run("group", "acc", [], value=0.4, n=40)]
    for steered in ({"calm": after}, {"calm": after, "haste": after}):
        rows = capability_rows(before, steered, dose=0.3)
        assert one(rows, "f1", "transplanted", "gain").value == pytest.approx(0.2)
        assert one(rows, "group", "transplanted", "gain").value == pytest.approx(-0.1)
        assert all(r.low is None for r in rows if r.metric in ("score", "gain"))
        assert one(rows, "group", "unsteered", "score").n == 40


def test_p_values_are_adjusted_over_tasks():
    before = [run(task, "acc", BEFORE) for task in ("a", "b", "c")]
    after = [run("a", "acc", AFTER["haste"]), run("b", "acc", AFTER["calm"]), run("c", "acc", BEFORE)]
    rows = capability_rows(before, {"calm": after}, dose=0.3)
    p = {t: one(rows, t, "transplanted", "mcnemar_p").value for t in "abc"}
    holm = {t: one(rows, t, "transplanted", "mcnemar_p_holm").value for t in "abc"}
    assert holm == pytest.approx({"a": 3 * p["a"], "b": 2 * p["b"], "c": 1.0})


def test_what_cannot_be_compared():
    with pytest.raises(SpecError, match="No run under a transplant is given"):
        capability_rows([run("a", "acc", BEFORE)], {}, dose=0.3)
    with pytest.raises(SpecError, match="a was not run on the same items both times"):
        capability_rows([run("a", "acc", BEFORE)], {"calm": [run("a", "acc", BEFORE[:3])]}, dose=0.3)
