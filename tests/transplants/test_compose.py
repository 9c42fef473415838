"""Several directions against NumPy, SciPy and what each method promises."""

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power
from scipy.optimize import minimize

from contrans.errors import FitError, SpecError
from contrans.transplants.compose import (
    COMBINATIONS,
    ORTHOGONAL,
    combine,
    cosine_matrix,
    gram_schmidt,
    loewdin,
    parts,
    solve_readout,
)

K, D = 4, 24


def correlated(seed: int = 0) -> torch.Tensor:
    """Directions that share a part, of lengths from 1 to 1,000."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(K, D, generator=generator) + 0.8 * torch.randn(D, generator=generator)
    return rows * torch.tensor([1.0, 10.0, 100.0, 1000.0])[:, None]


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.sqrt((rows**2).sum(1, keepdims=True))


def test_cosines():
    u = unit(correlated())
    np.testing.assert_allclose(cosine_matrix(correlated()), u @ u.T, atol=1e-12)


@pytest.mark.parametrize("method", [gram_schmidt, loewdin])
def test_orthogonal_with_the_old_lengths(method):
    rows = correlated()
    got = method(rows)
    np.testing.assert_allclose(unit(got) @ unit(got).T, np.eye(K), atol=1e-10)
    np.testing.assert_allclose(got.norm(dim=1), rows.double().norm(dim=1), rtol=1e-10)


def test_gram_schmidt_equals_the_textbook():
    basis: list[np.ndarray] = []
    for row in unit(correlated()):
        left = row - sum((row @ b) * b for b in basis)
        basis.append(left / np.linalg.norm(left))
    np.testing.assert_allclose(unit(gram_schmidt(correlated())), basis, atol=1e-10)
    np.testing.assert_allclose(unit(gram_schmidt(correlated()))[0], unit(correlated())[0], atol=1e-10)


def test_loewdin_equals_the_inverse_root_and_does_not_depend_on_the_order():
    u = unit(correlated())
    np.testing.assert_allclose(unit(loewdin(correlated())), fractional_matrix_power(u @ u.T, -0.5) @ u, atol=1e-9)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(loewdin(correlated()[order]), loewdin(correlated())[order], rtol=1e-8, atol=1e-8)


def test_loewdin_is_the_nearest_orthonormal_set():
    u, best = unit(correlated()), unit(loewdin(correlated()))
    distance = ((u - best) ** 2).sum()
    assert distance < ((u - unit(gram_schmidt(correlated()))) ** 2).sum()
    rng = np.random.default_rng(0)
    for scale in (0.01, 0.1, 1.0):
        for _ in range(50):
            skew = rng.normal(size=(D, D)) * scale
            other = best @ np.linalg.qr(np.eye(D) + skew - skew.T)[0]
            assert distance <= ((u - other) ** 2).sum() + 1e-12


def test_readouts_move_as_wanted_by_the_shortest_shift():
    readouts, wanted = correlated(1)[:2], [3.0, -2.0]
    free = solve_readout(None, readouts, wanted)
    np.testing.assert_allclose(unit(readouts) @ free.numpy(), wanted, atol=1e-10)
    np.testing.assert_allclose(free, np.linalg.lstsq(unit(readouts), np.array(wanted), rcond=None)[0], atol=1e-10)
    directions = correlated(2)
    within = solve_readout(directions, readouts, wanted)
    np.testing.assert_allclose(unit(readouts) @ within.numpy(), wanted, atol=1e-8)
    u = unit(directions)
    # SciPy's constrained minimum over the weights of the directions
    found = minimize(
        lambda a: ((a @ u) ** 2).sum(),
        np.zeros(K),
        jac=lambda a: 2 * (a @ u) @ u.T,
        constraints={"type": "eq", "fun": lambda a: unit(readouts) @ (a @ u) - wanted},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(within, found.x @ u, atol=1e-4)
    assert float(free.norm()) <= float(within.norm())


@pytest.mark.parametrize("method", COMBINATIONS)
def test_combinations(method):
    doses, r = [0.2, -0.1, 0.3, 0.0], 50.0
    rows = correlated()
    given, shift = parts(rows, doses, method, r), combine(rows, doses, method, r)
    assert shift.dtype == torch.float32
    np.testing.assert_allclose(shift, given.sum(0), rtol=1e-5, atol=1e-5)
    lengths = np.array(doses) * r
    if method == "sum":
        np.testing.assert_allclose(shift, lengths @ unit(rows), rtol=1e-5, atol=1e-5)
    elif method == "solve":
        np.testing.assert_allclose(unit(rows) @ given.sum(0).numpy(), lengths, atol=1e-9)
        np.testing.assert_allclose(given.sum(0), solve_readout(rows, rows, lengths), atol=1e-9)
    else:
        np.testing.assert_allclose(given.norm(dim=1), np.abs(lengths), atol=1e-9)
        assert method in ORTHOGONAL
    scaled = combine(rows, doses, method, r, target_length=7.0)
    np.testing.assert_allclose(scaled, shift * 7 / shift.norm(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", COMBINATIONS)
def test_orthogonal_directions_all_combine_alike(method):
    rows = torch.eye(K, D) * 3
    norms = [10.0, 20.0, 30.0, 40.0]
    np.testing.assert_allclose(
        combine(rows, [0.1] * K, method, norms), combine(rows, [0.1] * K, "sum", norms), atol=1e-6
    )


def test_bad_input():
    rows = correlated()
    twin = torch.stack([rows[0], rows[1], 5 * rows[1] + 0.01 * rows[0]])
    for method in ("loewdin", "gram_schmidt", "solve"):
        with pytest.raises(FitError, match=r"directions 1 and 2 have a cosine of 1\.0000"):
            combine(twin, [0.1] * 3, method, 1.0)
    combine(twin, [0.1] * 3, "sum", 1.0)
    with pytest.raises(FitError, match="nearly dependent"):
        loewdin(torch.randn(3, 2))
    with pytest.raises(FitError, match="zero or not finite"):
        cosine_matrix(torch.stack([rows[0], torch.zeros(D)]))
    with pytest.raises(FitError, match="at least one row"):
        gram_schmidt(rows[0])
    with pytest.raises(FitError, match="cancel"):
        combine(torch.stack([rows[0], rows[0]]), [0.1, -0.1], "sum", 1.0, target_length=1.0)
    with pytest.raises(FitError, match="leave out a read-out"):
        solve_readout(rows[:1], rows[1:3], [1.0, 1.0])
    with pytest.raises(FitError, match="nearly dependent"):
        solve_readout(None, twin, [1.0, 1.0, 1.0])
    with pytest.raises(SpecError, match="2 read-outs need 2"):
        solve_readout(None, rows[:2], [1.0])
    with pytest.raises(SpecError, match="give one each"):
        combine(rows, [0.1], "sum", 1.0)
    with pytest.raises(SpecError, match="Combination 'mean' is not known"):
        combine(rows, [0.1] * K, "mean", 1.0)
