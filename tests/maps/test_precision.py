"""Products in float32 and target blocks side by side: the maps that float64 and one pair at a time give."""

from dataclasses import replace

import pytest
import torch

from contrans.errors import FitError, StateError
from contrans.maps import fit_states, side_by_side
from contrans.maps.estimators import ridge, shuffled
from contrans.maps.estimators.ridge import r2_of_lambdas
from contrans.maps.paired import PairedStates, Rows, moments_in_axes
from contrans.maps.streaming import TokenMoments
from contrans.states.by_kind import MomentsByKind
from tests.maps.test_spectral import record

N, DS, DT = 2500, 60, 40


def ill_conditioned(seed: int, width: int, factors: torch.Tensor, massive: bool) -> torch.Tensor:
    """Rows whose spreads along random axes fall by 10⁶, about means 100 times as large, perhaps with a huge column."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn((width, width), generator=g, dtype=torch.float64))[0]
    rows = factors @ torch.randn((factors.shape[1], width), generator=g, dtype=torch.float64)
    rows = rows + 0.3 * torch.randn((len(factors), width), generator=g, dtype=torch.float64)
    rows = rows @ (axes * torch.logspace(0, -6, width, dtype=torch.float64)) @ axes.T
    if massive:
        rows[:, 3] *= 1e3
    return (rows + 100 * rows.std(0) * torch.randn(width, generator=g, dtype=torch.float64)).float()


@pytest.fixture(scope="module", params=[False, True], ids=["even", "massive"])
def states(request) -> tuple[torch.Tensor, torch.Tensor]:
    factors = torch.randn((N, 12), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return ill_conditioned(1, DS, factors, request.param), ill_conditioned(2, DT, factors, request.param)


def both(x: torch.Tensor, y: torch.Tensor) -> tuple[PairedStates, PairedStates]:
    """The rows with products in float64, and in float32."""
    exact = PairedStates(x, y, [str(i) for i in range(len(x))])
    rows = Rows(exact.documents)
    moments = moments_in_axes(rows, x, rows.centred([y], torch.float32), y.shape[1], "all", {})
    return exact, replace(exact, moments=moments, spectra={})


def test_float32_products_give_the_scores_and_directions_of_float64(states):
    exact, fast = both(*states)
    torch.testing.assert_close(r2_of_lambdas(fast), r2_of_lambdas(exact), atol=1e-6, rtol=0)
    wanted, got = ridge(exact), ridge(fast)
    assert got.info["rho"] == wanted.info["rho"]
    x = states[0].double()
    g = torch.Generator().manual_seed(3)
    # differences of states, as concept vectors are, and arbitrary directions
    apart = x[torch.randperm(N, generator=g)[:200]] - x[torch.randperm(N, generator=g)[:200]]
    for directions in (apart, torch.randn((200, DS), generator=g, dtype=torch.float64)):
        cosine = torch.nn.functional.cosine_similarity(directions @ wanted.weight, directions @ got.weight, dim=1)
        assert float(cosine.min()) > 1 - 1e-6


def test_errors_are_measured_by_each_axis(states):
    exact, fast = both(*states)
    torch.testing.assert_close(fast.whole.sxx, exact.whole.sxx, rtol=1e-12, atol=0)
    # along the principal axes, each of which would drown in the error of a column of the states as they are
    e, v = exact.spectrum("train")
    scale = (e.clamp_min(1e-15 * float(e[-1]))[:, None] * exact.train.n).sqrt() * exact.train.syy**0.5
    error = (v.T @ (fast.train.cross() - exact.train.cross()) / scale).abs().max()
    assert 0 < float(error) < 1e-6


def test_blocks_side_by_side_equal_one_pair_at_a_time(monkeypatch):
    g = torch.Generator().manual_seed(0)
    x = {b: torch.randn((300, 11), generator=g) + 5 for b in (1, 2)}
    y = {b: x[1] @ torch.randn((11, 4 + b), generator=g) + torch.randn((300, 4 + b), generator=g) for b in (0, 3, 5)}
    kinds = ["abc"[i % 3] for i in range(300)]
    settings = {"documents": [str(i // 2) for i in range(300)], "kinds": kinds, "share": {"a": 0.5}}
    # all targets at once, two groups, and none whose rows are kept; with and without turning the source
    for kept, wide in ((2**30, 3), (2**30, 1), (4 * 300 * 12, 1), (1, 0.3)):
        monkeypatch.setattr(side_by_side, "_KEPT", kept)
        monkeypatch.setattr(side_by_side, "_WIDE", wide)
        for estimator in ("ridge", "whitened"):
            for center in ("all", "kind"):
                for (ls, lt), m in fit_states(
                    x, y, source=record(11), target=record(4), estimator=estimator, center=center, **settings
                ).maps.items():
                    alone = fit_states(
                        {ls: x[ls]},
                        {lt: y[lt]},
                        source=record(11),
                        target=record(4),
                        estimator=estimator,
                        center=center,
                        **settings,
                    )[ls, lt]
                    torch.testing.assert_close(m.weight, alone.weight, rtol=1e-5, atol=1e-6)
                    torch.testing.assert_close(m.bias, alone.bias, rtol=1e-5, atol=1e-5)
                    assert m.target_norm == alone.target_norm
                    assert m.info["heldout_r2"] == pytest.approx(alone.info["heldout_r2"], abs=1e-6)


def test_shuffled_takes_no_moments_of_the_true_pairs(states):
    exact, fast = both(*states)
    torch.testing.assert_close(shuffled(fast).weight, shuffled(exact).weight, rtol=1e-9, atol=1e-12)


def test_all_targets_of_streamed_tokens_share_their_rows_and_spectrum():
    g = torch.Generator().manual_seed(0)
    x, ys = torch.randn((400, 5), generator=g), [torch.randn((400, 3), generator=g) for _ in range(2)]
    ys[1][7] *= 1e3  # a sink of one target block
    wide = TokenMoments(MomentsByKind(5, 6), MomentsByKind(5, 6), "all", {})
    wide.update(["plain"] * 400, torch.arange(400) >= 300, x, *ys)
    one, two = wide.of_target(0, 0, 3), wide.of_target(1, 3, 6)
    assert one.whole.n == two.whole.n == 399
    rest = [i for i in range(400) if i != 7]
    alone = TokenMoments(MomentsByKind(5, 3), MomentsByKind(5, 3), "all", {})
    alone.update(["plain"] * 399, torch.tensor(rest) >= 300, x[rest], ys[1][rest])
    torch.testing.assert_close(two.whole.sxy, alone.whole.sxy)
    assert two.whole.syy == pytest.approx(alone.whole.syy)
    assert two.target_norm == pytest.approx(alone.target_norm)
    assert one.spectrum("train")[1] is two.spectrum("train")[1]


def test_states_of_another_number_of_rows_are_refused():
    settings = {"documents": [str(i) for i in range(60)], "source": record(4), "target": record(3)}
    with pytest.raises(StateError, match=r"block 7 has the shape \(59, 3\) for 60 documents"):
        fit_states({1: torch.randn(60, 4)}, {7: torch.randn(59, 3)}, **settings)
    with pytest.raises(FitError, match="do not vary"):
        fit_states({1: torch.ones(60, 1)}, {b: torch.randn(60, 2) for b in (1, 2)}, **settings)
