"""What the states say about a vector, and the block that is chosen by it."""

from itertools import combinations

import numpy as np
import pytest
import torch

from contrans.concepts import ConceptVector, refine_states
from contrans.concepts.diagnostics import auc, d_prime, diagnose, pair_cosine
from contrans.concepts.estimators import ESTIMATORS, lda, mean_difference
from contrans.errors import BlockError, FitError, StateError
from contrans.models import ModelRecord

RECORD = ModelRecord("local", "toy", None, "f" * 64, "toy", 16, 10, None, "float32")


def sides(n: int, m: int, strength: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    v = torch.nn.functional.normalize(torch.randn(16, generator=g), dim=0)
    return torch.randn((n, 16), generator=g) + strength * v + 5, torch.randn((m, 16), generator=g) + 5


@pytest.mark.parametrize(("paired", "m"), [(True, 9), (False, 9), (False, 14)])
def test_pair_cosine_against_all_pairs(paired, m):
    p, q = sides(9, m, 2.0)
    differences = p - q if paired else p - q.mean(0)
    expected = np.mean([float(torch.cosine_similarity(a, b, dim=0)) for a, b in combinations(differences, 2)])
    assert pair_cosine(p, q, paired=paired) == pytest.approx(expected, abs=1e-6)


def test_pair_cosine_of_one_direction_and_of_none():
    q = sides(6, 6, 0.0)[1]
    assert pair_cosine(q + torch.arange(1, 7)[:, None], q, paired=True) == pytest.approx(1)
    # a pair without a difference has no direction to compare
    assert pair_cosine(q, q, paired=True) == 0
    assert pair_cosine(torch.cat([q[:4] + 1, q[4:]]), q, paired=True) == pytest.approx(1)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_each_half_is_judged_by_the_other(name):
    p, q = sides(21, 34, 2.0)
    estimate = ESTIMATORS[name]
    even, odd = estimate(p[::2], q[::2]), estimate(p[1::2], q[1::2])
    judged = [(p[1::2].double() @ even, q[1::2].double() @ even), (p[::2].double() @ odd, q[::2].double() @ odd)]
    found = diagnose(p, q, estimate)
    assert found["split_half_cosine"] == pytest.approx(float(torch.cosine_similarity(even, odd, dim=0)))
    assert found["auc"] == pytest.approx(sum(auc(*s) for s in judged) / 2)
    assert found["d_prime"] == pytest.approx(sum(d_prime(*s) for s in judged) / 2)
    assert found["n"] == 21


def test_too_few_or_uniform_halves_are_no_evidence():
    nothing = {"split_half_cosine": 0.0, "auc": 0.5, "d_prime": 0.0}
    p, q = sides(3, 8, 5.0)
    assert nothing.items() <= diagnose(p, q, mean_difference).items()
    # within the even half of either side all rows are the same, so that half has no covariance
    p, q = (torch.where(torch.arange(8)[:, None] % 2 == 0, 1.0 + i, torch.randn(8, 4)) for i in (0, 1))
    assert bool(torch.isfinite(lda(p, q)).all())
    assert nothing.items() <= diagnose(p, q, lda).items()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_diagnostics_come_with_the_vector(name):
    states = {b: sides(40, 40, strength) for b, strength in ((2, 0.5), (5, 4.0), (8, 2.0))}
    made = refine_states(states, concept="c", model=RECORD, estimator=name, paired=True)
    assert set(made.diagnostics) == {2, 5, 8}
    assert made.diagnostics[5].keys() == {"split_half_cosine", "auc", "d_prime", "pair_cosine", "n"}
    assert made.diagnostics[5]["pair_cosine"] == pytest.approx(pair_cosine(*states[5], paired=True), abs=1e-6)
    assert made.best_block() == 5
    assert made.best_block(within=(0.6, 1.0)) == 8
    assert made.at(2).best_block() == 2
    again = ConceptVector.from_files(made.to_files())
    assert again.diagnostics == made.diagnostics


def vector_with(facts: dict[int, tuple[float, float]]) -> ConceptVector:
    diagnostics = {str(b): {"d_prime": d, "auc": a} for b, (d, a) in facts.items()}
    ones = dict.fromkeys(facts, 1.0)
    return ConceptVector("c", RECORD, {b: torch.ones(16) for b in facts}, ones, ones, {"diagnostics": diagnostics})


@pytest.mark.parametrize(
    ("facts", "within", "best"),
    [
        ({0: (1, 0.7), 4: (3, 0.9), 9: (2, 0.99)}, (0, 1), 4),
        ({0: (3, 0.7), 4: (3, 0.9)}, (0, 1), 4),
        ({3: (2, 0.9), 4: (2, 0.9)}, (0, 1), 3),
        ({3: (2, 0.9), 6: (1, 0.9), 8: (0, 0.9)}, (0.6, 0.8), 6),
        ({0: (-1, 0.2), 1: (-2, 0.1)}, (0, 1), 0),
    ],
)
def test_best_block(facts, within, best):
    assert vector_with(facts).best_block(within=within) == best


def test_no_best_block():
    with pytest.raises(BlockError, match=r"no diagnostics at relative depths 0\.9 to 1"):
        vector_with({3: (2, 0.9)}).best_block(within=(0.9, 1.0))
    mapped = ConceptVector(
        "c", RECORD, {1: torch.ones(16)}, {1: 1.0}, {1: 1.0}, {"refined": {"diagnostics": {"1": {}}}}
    )
    assert mapped.diagnostics == {}
    with pytest.raises(BlockError, match="no diagnostics"):
        mapped.best_block()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_states_without_a_direction_name_their_block(name):
    p, q = sides(6, 6, 1.0)
    for bad, error, says in [
        ((p, p), FitError, r"at block 3 of toy\. .* the same on average"),
        ((p, q * float("inf")), StateError, r"at block 3 of toy\. .* not finite"),
        ((p, q[:, :4]), FitError, r"at block 3 of toy\. .* 16 values and negative ones 4"),
        ((p[:1], q), FitError, "two of each are the least"),
        ((p, q[:5]), FitError, "so they are no pairs"),
    ]:
        with pytest.raises(error, match=says):
            refine_states({3: bad}, concept="c", model=RECORD, estimator=name, paired=True)
    with pytest.raises(FitError, match="No states were given"):
        refine_states({}, concept="c", model=RECORD, estimator=name)
