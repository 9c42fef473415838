"""Estimators against independent solutions, planted directions and states that hold none."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from contrans.concepts.diagnostics import auc
from contrans.concepts.estimators import ESTIMATORS, lda, logistic, mean_difference, pca
from contrans.concepts.estimators.lda import shrinkage
from contrans.errors import FitError, StateError

SHAPES = [(60, 60, 12), (25, 40, 12), (12, 12, 50), (10, 17, 50)]


def cosine(one, other) -> float:
    return float(torch.nn.functional.cosine_similarity(torch.as_tensor(one), torch.as_tensor(other), dim=0))


def states(n: int, m: int, d: int, *, seed: int = 0, strength: float = 2.0):
    """States [n, d], [m, d] with correlated noise of unequal size, and the planted unit direction [d]."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=d)
    v /= np.linalg.norm(v)
    mix = rng.normal(size=(d, d)) / np.sqrt(d) + np.eye(d)
    noise = rng.normal(size=(n + m, d)) @ mix + 30
    return torch.tensor(noise[:n] + strength * v), torch.tensor(noise[n:]), torch.tensor(v)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_planted_direction_is_found(name):
    g = torch.Generator().manual_seed(0)
    v = torch.nn.functional.normalize(torch.randn(32, generator=g), dim=0)
    noise = torch.randn((2, 5000, 32), generator=g)
    made = ESTIMATORS[name](noise[0] + 50 + 4 * v, noise[1] + 50)
    assert made.dtype == torch.float64
    assert cosine(made, v.double()) > 0.99
    assert float(made.norm()) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_direction_is_as_long_as_the_mean_difference(name, n, m, d):
    p, q, _ = states(n, m, d)
    assert float(ESTIMATORS[name](p, q).norm()) == pytest.approx(float(mean_difference(p, q).norm()))


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_swapped_sides_turn_the_direction_round(name, n, m, d):
    p, q, _ = states(n, m, d)
    torch.testing.assert_close(ESTIMATORS[name](p, q), -ESTIMATORS[name](q, p), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_pca_equals_the_singular_vector(n, m, d):
    p, q, _ = (t.numpy() for t in states(n, m, d))
    differences = p - q if n == m else np.vstack([p - q.mean(0), p.mean(0) - q])
    expected = np.linalg.svd(differences)[2][0]
    expected *= np.sign((differences @ expected).mean()) * np.linalg.norm(p.mean(0) - q.mean(0))
    np.testing.assert_allclose(pca(torch.tensor(p), torch.tensor(q)), expected, rtol=1e-7, atol=1e-9)


def brute_force_shrinkage(x: np.ndarray) -> float:
    """Ledoit and Wolf's estimate by its definition, one outer product at a time."""
    n, d = x.shape
    s = x.T @ x / n
    delta = ((s - np.trace(s) / d * np.eye(d)) ** 2).sum() / d
    beta = sum(((np.outer(row, row) - s) ** 2).sum() for row in x) / (d * n**2)
    return min(beta, delta) / delta


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_lda_equals_the_plain_inverse(n, m, d):
    p, q, _ = (t.numpy() for t in states(n, m, d))
    x = np.vstack([p - p.mean(0), q - q.mean(0)])
    s = brute_force_shrinkage(x)
    assert 0 < s < 1
    assert shrinkage(torch.tensor(x)) == pytest.approx(s)
    covariance = (1 - s) * x.T @ x / len(x) + s * (x**2).sum() / x.size * np.eye(d)
    expected = np.linalg.inv(covariance) @ (p.mean(0) - q.mean(0))
    expected *= np.linalg.norm(p.mean(0) - q.mean(0)) / np.linalg.norm(expected)
    np.testing.assert_allclose(lda(torch.tensor(p), torch.tensor(q)), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("n", "m", "d"), SHAPES)
def test_logistic_equals_a_general_optimiser(n, m, d):
    p, q, _ = (t.numpy() for t in states(n, m, d))
    x = np.vstack([p, q])
    z = (x - x.mean(0)) / x.std(0)
    y = np.r_[np.ones(n), -np.ones(m)]
    c = np.r_[np.full(n, (n + m) / 2 / n), np.full(m, (n + m) / 2 / m)]

    def loss(w):
        return (c * np.logaddexp(0, -y * (z @ w[:-1] + w[-1]))).sum() + (w[:-1] ** 2).sum() / 2

    found = minimize(loss, np.zeros(d + 1), method="BFGS", options={"gtol": 1e-6}).x[:-1] / x.std(0)
    found *= np.linalg.norm(p.mean(0) - q.mean(0)) / np.linalg.norm(found)
    np.testing.assert_allclose(logistic(torch.tensor(p), torch.tensor(q)), found, rtol=1e-3, atol=1e-4)


def test_whitening_beats_the_mean_difference_in_anisotropic_noise():
    rng = np.random.default_rng(1)
    scale = np.geomspace(8, 0.2, 24)
    v = rng.normal(size=24)
    v /= np.linalg.norm(v)
    noise = rng.normal(size=(4, 200, 24)) * scale
    p, q, new_p, new_q = map(torch.tensor, (noise[0] + v, noise[1], noise[2] + v, noise[3]))
    measured = {name: auc(new_p @ f(p, q), new_q @ f(p, q)) for name, f in ESTIMATORS.items()}
    assert measured["lda"] > measured["mean_difference"] + 0.15
    assert measured["logistic"] > measured["mean_difference"] + 0.15


@pytest.mark.parametrize("name", ESTIMATORS)
def test_rank_deficient_states_still_give_a_direction(name):
    rng = np.random.default_rng(2)
    # all states on a plane of 40 dimensions, one value constant, and every row twice
    rows = np.repeat(rng.normal(size=(12, 2)) @ rng.normal(size=(2, 40)), 2, axis=0)
    rows[:, 7] = 3.0
    p, q = torch.tensor(rows[:12] + 2 * rows[0]), torch.tensor(rows[12:])
    made = ESTIMATORS[name](p, q)
    assert bool(torch.isfinite(made).all())
    assert auc(p @ made, q @ made) > 0.5


def test_a_covariance_with_no_shrinkage_of_its_own_is_inverted():
    # rows ±x are all at one distance, so the estimate of their covariance has no error to shrink for
    x = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    p, q = torch.stack([x, -x]) + torch.tensor([0.0, 1.0, 0.0]), torch.stack([x, -x])
    assert shrinkage(torch.cat([q, q])) < 1e-12
    assert float(lda(p, q) @ x) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(
    ("positive", "negative", "error", "says"),
    [
        (torch.ones(0, 3), torch.eye(3), FitError, "no positive states"),
        (torch.eye(3), torch.ones(0, 3), FitError, "no negative states"),
        (torch.eye(3), torch.eye(3), FitError, "same on average"),
        (torch.full((3, 3), 0.1), torch.full((7, 3), 0.1), FitError, "same on average"),
        (torch.eye(3), torch.eye(4), FitError, "have 3 values and negative ones 4"),
        (torch.eye(3) * float("nan"), torch.eye(3), StateError, "positive states are not finite"),
        (torch.eye(3), torch.eye(3) / 0, StateError, "negative states are not finite"),
    ],
)
def test_states_that_hold_no_direction(name, positive, negative, error, says):
    with pytest.raises(error, match=says):
        ESTIMATORS[name](positive, negative)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_constant_sides(name):
    p, q = torch.full((5, 3), 0.3), torch.full((4, 3), 0.1)
    if name == "lda":
        with pytest.raises(FitError, match="no covariance to whiten by; use mean_difference"):
            lda(p, q)
    else:
        torch.testing.assert_close(ESTIMATORS[name](p, q), torch.full((3,), 0.2).double())
