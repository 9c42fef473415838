"""Refining finds a planted direction and says how far to believe it."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu

from contrans.concepts import ConceptVector, ContrastSet, refine, refine_states
from contrans.concepts.diagnostics import auc, d_prime
from contrans.errors import ArtifactError, BlockError, FitError, StateError
from contrans.models import ModelRecord
from contrans.states import capture
from tests.tiny import tiny

RECORD = ModelRecord("local", "toy", None, "f" * 64, "toy", 32, 4, None, "float32")


def planted(n: int = 400, strength: float = 3.0, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    v = torch.randn(32, generator=g)
    v = v / v.norm()
    noise = torch.randn((2, n, 32), generator=g)
    return v, noise[0] + 50 + strength * v, noise[1] + 50


def test_a_planted_direction_is_found():
    v, positive, negative = planted()
    made = refine_states({1: (positive, negative)}, concept="c", model=RECORD)
    assert torch.nn.functional.cosine_similarity(made.directions[1], v, dim=0) > 0.95
    facts = made.provenance["diagnostics"]["1"]
    assert facts["auc"] > 0.95
    assert facts["d_prime"] == pytest.approx(3, abs=0.4)
    assert facts["split_half_cosine"] > 0.8
    many = refine_states({1: planted(20_000)[1:]}, concept="c", model=RECORD)
    assert torch.nn.functional.cosine_similarity(many.directions[1], v, dim=0) > 0.99


def test_a_concept_that_is_not_there_is_said(caplog):
    _, positive, negative = planted(strength=0.0)
    made = refine_states({1: (positive, negative)}, concept="c", model=RECORD)
    assert made.provenance["diagnostics"]["1"]["d_prime"] < 1
    assert "hardly holds this concept" in caplog.text


def test_auc_and_d_prime_against_scipy_and_numpy():
    rng = np.random.default_rng(0)
    p, n = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 55).astype(float)
    expected = mannwhitneyu(p, n).statistic / (40 * 55)
    assert auc(torch.tensor(p), torch.tensor(n)) == pytest.approx(expected)
    pooled = np.sqrt((p.var(ddof=1) + n.var(ddof=1)) / 2)
    assert d_prime(torch.tensor(p), torch.tensor(n)) == pytest.approx((p.mean() - n.mean()) / pooled)
    assert d_prime(torch.ones(3), torch.ones(3)) == 0


def test_refine_equals_the_mean_difference_of_captured_states():
    model = tiny("llama")
    pairs = [(f"the cat {i}", f"one stone {i}") for i in range(8)]
    made = refine(model, ContrastSet.from_pairs("c", pairs, template="Text: {text} so"), split=None)
    positive = capture(model, [f"Text: {p} so" for p, _ in pairs])
    negative = capture(model, [f"Text: {n} so" for _, n in pairs])
    assert made.blocks == [0, 1, 2, 3]
    for b in made.blocks:
        expected = positive[b].numpy().astype(np.float64).mean(0) - negative[b].numpy().astype(np.float64).mean(0)
        np.testing.assert_allclose(made.directions[b], expected, rtol=1e-3, atol=1e-5)
    assert made.template == "Text: {text} so"


def test_files_hold_the_vector_whole(tmp_path):
    made = refine_states({1: planted()[1:], 3: planted(seed=2)[1:]}, concept="c", model=RECORD, provenance={"a": [1]})
    again = ConceptVector.load(made.save(tmp_path / "v"))
    assert again.provenance == made.provenance
    assert again.model == made.model
    assert (again.spread, again.residual_norm) == (made.spread, made.residual_norm)
    for b in (1, 3):
        assert torch.equal(again.directions[b], made.directions[b])
    assert again.to_files() == made.to_files()


def test_damaged_files(tmp_path):
    made = refine_states({1: planted()[1:]}, concept="c", model=RECORD)
    files = made.to_files()
    json_name, tensors = "concept_vector.json", "concept_vector.safetensors"
    for broken, says in [
        ({json_name: files[json_name]}, "missing or damaged"),
        ({**files, tensors: files[tensors][:-7]}, "missing or damaged"),
        ({**files, json_name: b"{"}, "missing or damaged"),
        (
            {**files, json_name: files[json_name].replace(b'"format_version": 1', b'"format_version": 7')},
            "upgrade contrans",
        ),
        (
            {**files, json_name: files[json_name].replace(b'"hidden_size": 32', b'"hidden_size": 31')},
            "damaged at block 1",
        ),
        (
            {
                **files,
                json_name: files[json_name].replace(b'"kind": "concept_vector"', b'"kind": "affine_map"'),
            },
            "not a concept_vector",
        ),
    ]:
        with pytest.raises(ArtifactError, match=says):
            ConceptVector.from_files(broken)
    with pytest.raises(ArtifactError, match="can be read"):
        ConceptVector.load(tmp_path / "nowhere")


def test_bad_input():
    _, p, n = planted(10)
    with pytest.raises(FitError, match="No estimator is called 'best'"):
        refine_states({1: (p, n)}, concept="c", model=RECORD, estimator="best")
    with pytest.raises(FitError, match="two of each are the least"):
        refine_states({1: (p[:1], n)}, concept="c", model=RECORD)
    with pytest.raises(FitError, match=r"at block 1 of toy\. Positive and negative states are the same on average"):
        refine_states({1: (p, p)}, concept="c", model=RECORD)
    with pytest.raises(StateError, match="not finite"):
        refine_states({1: (p, n * float("nan"))}, concept="c", model=RECORD)
    made = refine_states({1: (p, n), 2: (p, n)}, concept="c", model=RECORD)
    with pytest.raises(BlockError, match="no direction at block 0"):
        made.direction(0)
    with pytest.raises(BlockError, match="say which"):
        made.only_block()
    assert made.at(2).only_block() == 2
