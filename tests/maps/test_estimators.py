"""Maps against independent NumPy solutions and brute force."""

import numpy as np
import pytest
import torch

from contrans.errors import FitError, StateError
from contrans.maps.estimators import identity, paper, ridge, shuffled
from contrans.maps.estimators.gram import leave_one_out_r2
from contrans.maps.estimators.ridge import RHO_GRID, penalised, r2_of_lambdas
from contrans.maps.paired import PairedStates


def rows(n=300, ds=12, dt=9, noise=0.1, seed=0, offset=30.0, group=3) -> PairedStates:
    g = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -2, ds, dtype=torch.float64)
    x = torch.randn((n, ds), generator=g, dtype=torch.float64) * scale + offset
    w = torch.randn((ds, dt), generator=g, dtype=torch.float64)
    y = x @ w + 3 + noise * torch.randn((n, dt), generator=g, dtype=torch.float64)
    return PairedStates(x, y, [f"d{i // group}" for i in range(n)])


def test_paper_equals_an_independent_numpy_solution():
    paired = rows(ds=20)
    fit = paper(paired)
    keep = ~paired.is_held_out.numpy()
    expected = np.linalg.lstsq(paired.x.numpy()[keep], paired.y.numpy()[keep], rcond=None)[0]
    np.testing.assert_allclose(fit.weight, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    assert not fit.bias.any()
    few = rows(n=24, ds=40)
    expected = np.linalg.pinv(few.x.numpy()[~few.is_held_out]) @ few.y.numpy()[~few.is_held_out]
    np.testing.assert_allclose(paper(few).weight, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def normal_equations(x: np.ndarray, y: np.ndarray, rho: float) -> tuple[np.ndarray, np.ndarray]:
    xc, yc = x - x.mean(0), y - y.mean(0)
    c = xc.T @ xc / len(x)
    weight = np.linalg.solve(c + rho * np.trace(c) / len(c) * np.eye(len(c)), xc.T @ yc / len(x))
    return weight, y.mean(0) - x.mean(0) @ weight


@pytest.mark.parametrize("rho", [1e-6, 1e-2, 1.0])
def test_ridge_equals_the_normal_equations(rho):
    paired = rows()
    fit = penalised(paired, rho, {})
    weight, bias, retained, lam = fit.weight, fit.bias, fit.retained, fit.info["lambda"]
    x, y = paired.x.numpy(), paired.y.numpy()
    xc, yc = x - x.mean(0), y - y.mean(0)
    c = xc.T @ xc / len(x)
    assert lam == pytest.approx(rho * np.trace(c) / len(c))
    expected = np.linalg.solve(c + lam * np.eye(len(c)), xc.T @ yc / len(x))
    np.testing.assert_allclose(weight, expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(bias, y.mean(0) - x.mean(0) @ expected, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(retained, np.linalg.solve(c + lam * np.eye(len(c)), c), rtol=1e-6, atol=1e-9)


def test_held_out_r2_from_moments_equals_brute_force():
    paired = rows(noise=2.0)
    fast = r2_of_lambdas(paired)
    held = paired.is_held_out.numpy()
    for rho, got in zip(RHO_GRID, fast.tolist(), strict=True):
        weight, bias = normal_equations(paired.x.numpy()[~held], paired.y.numpy()[~held], rho)
        error = paired.y.numpy()[held] - (paired.x.numpy()[held] @ weight + bias)
        total = paired.y.numpy()[held] - paired.train.mean_y.numpy()
        assert got == pytest.approx(1 - (error**2).sum() / (total**2).sum(), abs=1e-8)
    assert ridge(paired).info["rho"] == RHO_GRID[int(fast.argmax())]


def test_leave_one_out_equals_leaving_each_row_out():
    g = torch.Generator().manual_seed(4)
    x = torch.randn((14, 30), generator=g, dtype=torch.float64) + 5
    y = x @ torch.randn((30, 6), generator=g, dtype=torch.float64) + torch.randn(
        (14, 6), generator=g, dtype=torch.float64
    )
    xc, yc = x - x.mean(0), y - y.mean(0)
    e, u = torch.linalg.eigh(xc @ xc.T)
    penalties = [0.3, 30.0]
    fast = leave_one_out_r2(e.clamp_min(0), u, yc, penalties)
    for penalty, got in zip(penalties, fast.tolist(), strict=True):
        error = total = 0.0
        for i in range(14):
            rest = [j for j in range(14) if j != i]
            a, b = x[rest].numpy(), y[rest].numpy()
            ac, bc = a - a.mean(0), b - b.mean(0)
            w = np.linalg.solve(ac.T @ ac + penalty * np.eye(30), ac.T @ bc)
            error += ((y[i].numpy() - b.mean(0) - (x[i].numpy() - a.mean(0)) @ w) ** 2).sum()
            total += ((y[i].numpy() - b.mean(0)) ** 2).sum()
        assert got == pytest.approx(1 - error / total, abs=1e-9)


def test_few_rows_take_the_gram_route_to_the_same_map():
    paired = rows(n=25, ds=40, group=1)
    fit = ridge(paired)
    assert fit.info["n_heldout"] == 25
    by_moments = penalised(paired, fit.info["rho"], {})
    assert fit.info["lambda"] == pytest.approx(by_moments.info["lambda"])
    np.testing.assert_allclose(fit.weight, by_moments.weight, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(fit.bias, by_moments.bias, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(fit.retained, by_moments.retained, rtol=1e-5, atol=1e-7)


def test_ridge_finds_the_planted_map():
    paired = rows(n=3000, noise=1e-4)
    fit = ridge(paired)
    np.testing.assert_allclose(paired.x @ fit.weight + fit.bias, paired.y, atol=0.01)
    assert fit.info["heldout_r2"] > 0.999


def test_shuffled_predicts_nothing_at_the_same_strength():
    paired = rows(noise=1.0)
    true, mixed = ridge(paired), shuffled(paired)
    assert mixed.info["rho"] == true.info["rho"]
    assert mixed.info["heldout_r2"] < 0.05 < true.info["heldout_r2"]


def test_identity():
    paired = rows(ds=9)
    moved = PairedStates(paired.x, paired.x + 2, paired.documents)
    fit = identity(moved)
    torch.testing.assert_close(fit.bias, torch.full((9,), 2.0, dtype=torch.float64))
    assert fit.info["heldout_r2"] == pytest.approx(1)
    with pytest.raises(FitError, match="equal hidden sizes"):
        identity(rows())


def test_documents_are_never_split():
    paired = rows()
    sides: dict[str, set[bool]] = {}
    for document, held in zip(paired.documents, paired.is_held_out.tolist(), strict=True):
        sides.setdefault(document, set()).add(held)
    assert all(len(s) == 1 for s in sides.values())
    assert 0.1 < paired.is_held_out.double().mean() < 0.3
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    turned = PairedStates(paired.x[order], paired.y[order], [paired.documents[i] for i in order])
    assert torch.equal(turned.is_held_out, paired.is_held_out[order])


def test_bad_input():
    with pytest.raises(FitError, match="at least 5 documents"):
        ridge(PairedStates(torch.randn(40, 3), torch.randn(40, 3), ["one"] * 40))
    with pytest.raises(FitError, match="at least 10 paired rows"):
        ridge(rows(n=10, ds=3, group=2))
    with pytest.raises(FitError, match="at least 10 paired rows"):
        paper(PairedStates(torch.randn(9, 3), torch.randn(9, 3), list("abcdefghi")))
    with pytest.raises(FitError, match="source states do not vary"):
        ridge(PairedStates(torch.ones(60, 3), torch.randn(60, 3), [str(i) for i in range(60)]))
    with pytest.raises(FitError, match="target states do not vary"):
        ridge(PairedStates(torch.randn(60, 3), torch.ones(60, 3), [str(i) for i in range(60)]))
    with pytest.raises(StateError, match="equally many rows"):
        PairedStates(torch.ones(5, 3), torch.ones(6, 3), ["a"] * 5)
