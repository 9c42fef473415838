"""Least squares, components, rotations and low ranks against NumPy; fixed effects, weights and the choice of λ."""

import numpy as np
import pytest
import torch

from contrans.errors import FitError
from contrans.maps.estimators import (
    MAP_ESTIMATORS,
    MOMENT_ESTIMATORS,
    lstsq,
    pcr,
    procrustes,
    reduced_rank,
    ridge,
    whitened,
)
from contrans.maps.estimators.directions import direction_scores
from contrans.maps.estimators.ridge import RHO_GRID
from contrans.maps.fit import fit_states
from contrans.maps.paired import PairedStates
from contrans.models import ModelRecord
from tests.maps.test_estimators import rows


def record(width: int) -> ModelRecord:
    return ModelRecord("m", "m", None, f"f{width}", "tiny", width, 4, None, "float32")


def numpy_rows(paired: PairedStates, held: bool) -> tuple[np.ndarray, np.ndarray]:
    keep = paired.is_held_out.numpy() == held
    return paired.x.double().numpy()[keep], paired.y.double().numpy()[keep]


def r2(paired: PairedStates, weight: np.ndarray, mean_x: np.ndarray, mean_y: np.ndarray) -> float:
    x, y = numpy_rows(paired, True)
    return 1 - ((y - mean_y - (x - mean_x) @ weight) ** 2).sum() / ((y - mean_y) ** 2).sum()


@pytest.mark.parametrize(("n", "ds"), [(300, 12), (60, 90)])
def test_lstsq_equals_numpy(n, ds):
    paired = rows(n=n, ds=ds)
    x, y = paired.x.numpy(), paired.y.numpy()
    expected = np.linalg.pinv(x - x.mean(0), rcond=1e-8) @ (y - y.mean(0))
    fit = lstsq(paired)
    np.testing.assert_allclose(fit.weight, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(fit.bias, y.mean(0) - x.mean(0) @ expected, rtol=1e-4, atol=1e-3)


def test_pcr_equals_numpy_and_takes_the_rank_that_predicts_best():
    g = torch.Generator().manual_seed(3)
    x = torch.randn((400, 20), generator=g, dtype=torch.float64) * torch.linspace(3, 0.5, 20, dtype=torch.float64)
    # only the five widest components carry anything; the rest is noise that costs
    y = x[:, :5] @ torch.randn((5, 7), generator=g, dtype=torch.float64)
    y = y + 6 * torch.randn((400, 7), generator=g, dtype=torch.float64)
    paired = PairedStates(x, y, [str(i) for i in range(400)])
    fit = pcr(paired)
    xt, yt = numpy_rows(paired, False)
    scores = {}
    for k in range(1, 21):
        _, s, vt = np.linalg.svd(xt - xt.mean(0), full_matrices=False)
        scores[k] = r2(
            paired, vt[:k].T / s[:k] ** 2 @ vt[:k] @ (xt - xt.mean(0)).T @ (yt - yt.mean(0)), xt.mean(0), yt.mean(0)
        )
    assert fit.info["heldout_r2"] == pytest.approx(scores[fit.info["k"]], abs=1e-9)
    assert fit.info["k"] <= 8
    a, b = x.numpy(), y.numpy()
    _, s, vt = np.linalg.svd(a - a.mean(0), full_matrices=False)
    k = fit.info["k"]
    expected = vt[:k].T / s[:k] ** 2 @ vt[:k] @ (a - a.mean(0)).T @ (b - b.mean(0))
    np.testing.assert_allclose(fit.weight, expected, atol=1e-9)
    np.testing.assert_allclose(fit.retained, vt[:k].T @ vt[:k], atol=1e-9)


@pytest.mark.parametrize(("ds", "dt"), [(6, 9), (9, 6), (8, 8)])
def test_procrustes_finds_a_planted_rotation_and_scale(ds, dt):
    g = torch.Generator().manual_seed(1)
    q = torch.linalg.qr(torch.randn((max(ds, dt), max(ds, dt)), generator=g, dtype=torch.float64))[0][:ds, :dt]
    if ds > dt:
        q = torch.linalg.qr(torch.randn((ds, dt), generator=g, dtype=torch.float64))[0]
    x = torch.randn((200, ds), generator=g, dtype=torch.float64) + 4
    fit = procrustes(PairedStates(x, 2.5 * x @ q + 1, [str(i) for i in range(200)]))
    if ds <= dt:
        torch.testing.assert_close(fit.weight, 2.5 * q, atol=1e-9, rtol=0)
        assert fit.info["heldout_r2"] == pytest.approx(1)
    product = fit.weight @ fit.weight.T if ds <= dt else fit.weight.T @ fit.weight
    torch.testing.assert_close(product / product[0, 0], torch.eye(min(ds, dt)).double(), atol=1e-9, rtol=0)


def test_reduced_rank_equals_numpy_and_finds_the_planted_rank():
    g = torch.Generator().manual_seed(2)
    x = torch.randn((500, 16), generator=g, dtype=torch.float64)
    w = torch.randn((16, 4), generator=g, dtype=torch.float64) @ torch.randn((4, 12), generator=g, dtype=torch.float64)
    y = x @ w + 3 * torch.randn((500, 12), generator=g, dtype=torch.float64)
    fit = reduced_rank(PairedStates(x, y, [str(i) for i in range(500)]))
    assert fit.info["k"] == 4
    assert torch.linalg.matrix_rank(fit.weight) == 4
    # the same as ridge on augmented rows, projected on its leading right singular vectors
    a, b = x.numpy() - x.numpy().mean(0), y.numpy() - y.numpy().mean(0)
    big = np.vstack([a, np.sqrt(500 * fit.info["lambda"]) * np.eye(16)])
    full = np.linalg.lstsq(big, np.vstack([b, np.zeros((16, 12))]), rcond=None)[0]
    v = np.linalg.svd(big @ full)[2][:4].T
    np.testing.assert_allclose(fit.weight, full @ v @ v.T, atol=1e-9)


def spread_rows(n=600, ds=10, dt=8, seed=5) -> tuple[torch.Tensor, torch.Tensor, list[str], torch.Tensor]:
    """Rows of three kinds whose means follow another law than what varies inside each."""
    g = torch.Generator().manual_seed(seed)
    w = torch.randn((ds, dt), generator=g, dtype=torch.float64)
    kinds = [f"k{i % 3}" for i in range(n)]
    at = torch.tensor([i % 3 for i in range(n)])
    mean_x = 20 * torch.randn((3, ds), generator=g, dtype=torch.float64)
    mean_y = 20 * torch.randn((3, dt), generator=g, dtype=torch.float64)
    inner = torch.randn((n, ds), generator=g, dtype=torch.float64)
    y = mean_y[at] + inner @ w + 0.01 * torch.randn((n, dt), generator=g, dtype=torch.float64)
    return mean_x[at] + inner, y, kinds, w


def test_fixed_effects_find_what_varies_inside_the_kinds():
    x, y, kinds, w = spread_rows()
    documents = [str(i) for i in range(len(x))]
    inside = ridge(PairedStates(x, y, documents, kinds=kinds, center="kind"))
    torch.testing.assert_close(inside.weight, w, atol=0.02, rtol=0)
    together = ridge(PairedStates(x, y, documents, kinds=kinds, center="all"))
    assert float((together.weight - w).norm() / w.norm()) > 10 * float((inside.weight - w).norm() / w.norm())
    # dummy variables in an ordinary regression: the same estimate
    dummies = np.array([[k == f"k{j}" for j in range(3)] for k in kinds], dtype=float)
    expected = np.linalg.lstsq(np.hstack([x.numpy(), dummies]), y.numpy(), rcond=None)[0][: x.shape[1]]
    fit = lstsq(PairedStates(x, y, documents, kinds=kinds, center="kind"))
    np.testing.assert_allclose(fit.weight, expected, atol=1e-8)
    assert inside.info["heldout_r2"] > 0.99


def test_shares_weigh_kinds_as_weighted_least_squares_does():
    paired = rows(n=200, group=1, noise=1.0)
    kinds = ["a" if i < 150 else "b" for i in range(200)]
    weighed = PairedStates(paired.x, paired.y, paired.documents, kinds=kinds, share={"b": 0.7})
    weights = np.where(np.arange(200) < 150, 0.3 / 150, 0.7 / 50)[:, None]
    x, y = paired.x.numpy(), paired.y.numpy()
    xc, yc = x - (weights * x).sum(0), y - (weights * y).sum(0)
    expected = np.linalg.lstsq(xc * np.sqrt(weights), yc * np.sqrt(weights), rcond=None)[0]
    np.testing.assert_allclose(lstsq(weighed).weight, expected, rtol=1e-6, atol=1e-7)
    with pytest.raises(FitError, match="no rows of kind 'c'"):
        PairedStates(paired.x, paired.y, paired.documents, kinds=kinds, share={"c": 0.5})
    with pytest.raises(FitError, match="sum to at most 1"):
        PairedStates(paired.x, paired.y, paired.documents, kinds=kinds, share={"a": 0.7, "b": 0.7})
    with pytest.raises(FitError, match="leave nothing"):
        PairedStates(paired.x, paired.y, paired.documents, kinds=kinds, share={"a": 1.0})


def test_direction_scores_equal_a_slow_computation():
    paired = rows(n=200, ds=30, group=1, noise=3.0)
    fast = direction_scores(paired, [1e-3, 1.0], draws=20)
    xh, yh = (r.numpy() for r in paired.held_rows)
    generator = torch.Generator().manual_seed(0)
    picks = [torch.randperm(len(xh), generator=generator)[:16].numpy() for _ in range(20)]
    for rho, got in zip([1e-3, 1.0], fast.tolist(), strict=True):
        xt, yt = numpy_rows(paired, False)
        c = (xt - xt.mean(0)).T @ (xt - xt.mean(0)) / len(xt)
        w = np.linalg.solve(c + rho * np.trace(c) / 30 * np.eye(30), (xt - xt.mean(0)).T @ (yt - yt.mean(0)) / len(xt))
        cosines = []
        for p in picks:
            a = (xh[p[:8]].mean(0) - xh[p[8:]].mean(0)) @ w
            b = yh[p[:8]].mean(0) - yh[p[8:]].mean(0)
            cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert got == pytest.approx(np.mean(cosines), abs=1e-9)
    fit = ridge(paired, lambda_select="direction")
    assert fit.info["rho"] == RHO_GRID[int(direction_scores(paired, list(RHO_GRID)).argmax())]


def test_one_factorisation_serves_all_targets_of_a_source_block(monkeypatch):
    g = torch.Generator().manual_seed(0)
    x = {b: torch.randn((120, 11), generator=g) for b in (1, 2)}
    y = {b: torch.randn((120, 7), generator=g) for b in (0, 1, 2)}
    calls = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: (calls.append(m.shape), eigh(m))[1])
    # of each of two source blocks: the rows fitted on, and all of them where no penalty makes these invertible
    for estimator, expected in (("ridge", 2), ("pcr", 4), ("lstsq", 4)):
        calls.clear()
        documents = [str(i) for i in range(120)]
        maps = fit_states(x, y, documents=documents, source=record(11), target=record(7), estimator=estimator)
        assert len(maps.maps) == 6
        assert len(calls) == expected


@pytest.mark.parametrize("estimator", [e for e in MAP_ESTIMATORS if e != "identity"])
def test_every_estimator_survives_rank_deficient_states(estimator):
    paired = rows(n=120, ds=9)
    doubled = torch.cat([paired.x, paired.x, torch.ones(120, 1).double()], dim=1)
    fit = MAP_ESTIMATORS[estimator](PairedStates(doubled, paired.y, paired.documents))
    assert torch.isfinite(fit.weight).all()
    assert torch.isfinite(fit.bias).all()


def test_estimators_of_moments_are_among_all():
    assert set(MOMENT_ESTIMATORS) < set(MAP_ESTIMATORS)


def numpy_power(c: np.ndarray, power: float) -> np.ndarray:
    e, v = np.linalg.eigh(c)
    return v @ np.diag((e + 0.01 * e.mean()) ** power) @ v.T


@pytest.mark.parametrize(("ds", "dt"), [(6, 9), (9, 6)])
def test_whitened_equals_numpy(ds, dt):
    g = torch.Generator().manual_seed(4)
    x = torch.randn((300, ds), generator=g, dtype=torch.float64) * torch.linspace(3, 0.3, ds, dtype=torch.float64) + 2
    y = x @ torch.randn((ds, dt), generator=g, dtype=torch.float64)
    y = y + torch.randn((300, dt), generator=g, dtype=torch.float64)
    fit = whitened(PairedStates(x, y, [str(i) for i in range(300)]))
    a, b = x.numpy() - x.numpy().mean(0), y.numpy() - y.numpy().mean(0)
    cx, cy, cxy = a.T @ a / 300, b.T @ b / 300, a.T @ b / 300
    u, _, vt = np.linalg.svd(numpy_power(cx, -0.25) @ cxy @ numpy_power(cy, -0.25), full_matrices=False)
    w = numpy_power(cx, -0.25) @ u @ vt @ numpy_power(cy, 0.25)
    scale = np.linalg.lstsq((a @ w).reshape(-1, 1), b.reshape(-1), rcond=None)[0][0]
    np.testing.assert_allclose(fit.weight, scale * w, atol=1e-9)
    assert 0 < fit.info["heldout_r2"] < 1
    assert torch.linalg.matrix_rank(fit.retained) == min(ds, dt)


def test_whitening_halfway_finds_any_linear_map_and_none_at_all_is_procrustes():
    g = torch.Generator().manual_seed(5)
    x = torch.randn((2000, 8), generator=g, dtype=torch.float64)
    weight = torch.randn((8, 8), generator=g, dtype=torch.float64)
    paired = PairedStates(x, x @ weight, [str(i) for i in range(2000)])

    def error(found: torch.Tensor) -> float:
        return float((found - weight).norm() / weight.norm())

    assert error(whitened(paired, power=0.5).weight) < 0.05
    assert error(procrustes(paired).weight) > 0.3
    torch.testing.assert_close(whitened(paired, power=0.0).weight, procrustes(paired).weight, atol=1e-8, rtol=1e-6)
