"""Streaming moments against NumPy on all rows at once."""

import numpy as np
import pytest
import torch

from contrans.errors import FitError, StateError
from contrans.states import Moments
from contrans.states.by_kind import Centred, MomentsByKind, check_share, kind_weights
from contrans.states.moments import gram


def test_merged_parts_equal_the_whole_even_far_from_the_origin():
    generator = torch.Generator().manual_seed(0)
    # a mean of 10⁴ beside a spread of 1: raw sums of squares would lose it in float32
    x = 1e4 + torch.randn((1000, 5), generator=generator, dtype=torch.float64)
    y = x[:, :3] * 2 - 7 + torch.randn((1000, 3), generator=generator, dtype=torch.float64)
    m = Moments.empty(5, 3)
    for rows in torch.split(torch.arange(1000), 37):
        m = m.update(x[rows], y[rows])
    a, b = x.numpy() - x.numpy().mean(0), y.numpy() - y.numpy().mean(0)
    assert m.n == 1000
    np.testing.assert_allclose(m.mean_x, x.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(m.sxx, a.T @ a, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(m.sxy, a.T @ b, rtol=1e-9, atol=1e-6)
    assert m.syy == pytest.approx((b * b).sum(), rel=1e-10)


def test_about_other_means():
    x, y = torch.randn((50, 4), dtype=torch.float64), torch.randn((50, 2), dtype=torch.float64)
    mx, my = torch.randn(4, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    c, d, q = Moments.of(x, y).about(mx, my)
    np.testing.assert_allclose(c, (x - mx).T @ (x - mx) / 50, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(d, (x - mx).T @ (y - my) / 50, rtol=1e-9, atol=1e-12)
    assert q == pytest.approx(float(((y - my) ** 2).sum() / 50))


def test_bad_rows():
    with pytest.raises(StateError, match="equally many rows"):
        Moments.of(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(StateError, match="not finite"):
        Moments.of(torch.tensor([[float("nan")]]), torch.zeros(1, 1))


def by_kind(n=300, share=None, seed=0) -> tuple[MomentsByKind, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of three kinds of unequal size, each about a mean of its own, streamed in parts of 40; and all at once."""
    g = torch.Generator().manual_seed(seed)
    kinds = np.array(["abbccc"[int(i)] for i in torch.randint(6, (n,), generator=g)])
    offset = {"a": 50.0, "b": -20.0, "c": 1e3}
    at = torch.tensor([offset[k] for k in kinds])[:, None].double()
    x = torch.randn((n, 5), generator=g, dtype=torch.float64) + at
    y = torch.randn((n, 3), generator=g, dtype=torch.float64) - 2 * at
    made = MomentsByKind(5, 3, share or {})
    for rows in torch.split(torch.arange(n), 40):
        made.update([kinds[i] for i in rows.tolist()], x[rows], y[rows])
    return made, kinds, x.numpy(), y.numpy()


def row_weights(kinds: np.ndarray, share: dict[str, float]) -> np.ndarray:
    """One weight a row, by a loop over the rows."""
    left, rest = 1 - sum(share.values()), sum(k not in share for k in kinds)
    w = np.array([share[k] / (kinds == k).sum() if k in share else left / rest for k in kinds])
    return w * len(kinds)


@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("share", [{}, {"a": 0.5}, {"a": 0.5, "c": 0.2}, {"a": 0.5, "b": 0.3, "c": 0.2}])
def test_streamed_kinds_equal_weighted_sums_over_all_rows(share, between):
    made, kinds, x, y = by_kind(share=share)
    w = row_weights(kinds, share)[:, None]
    mean_x, mean_y = (w * x).sum(0) / w.sum(), (w * y).sum(0) / w.sum()
    if between:
        a, b = x - mean_x, y - mean_y
    else:
        a = x - np.stack([x[kinds == k].mean(0) for k in kinds])
        b = y - np.stack([y[kinds == k].mean(0) for k in kinds])
    m = made.together(between=between)
    assert m.n == len(x)
    np.testing.assert_allclose(m.mean_x, mean_x, rtol=1e-10)
    np.testing.assert_allclose(m.mean_y, mean_y, rtol=1e-10)
    np.testing.assert_allclose(m.sxx, (w * a).T @ a, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(m.sxy, (w * a).T @ b, rtol=1e-9, atol=1e-7)
    assert m.syy == pytest.approx((w * b * b).sum(), rel=1e-9)
    plain, once = made.together(weighed=False), Moments.of(torch.tensor(x), torch.tensor(y))
    np.testing.assert_allclose(plain.sxx, once.sxx, rtol=1e-9, atol=1e-6)


def test_merged_kinds_equal_all_rows_and_leave_the_parts_alone():
    share = {"a": 0.5}
    one, kinds_1, x_1, y_1 = by_kind(share=share)
    two, kinds_2, x_2, y_2 = by_kind(n=90, share=share, seed=1)
    two.update(["d", "d"], torch.ones(2, 5), torch.ones(2, 3))  # a kind that the first has not
    before = one.together().sxx, two.together().sxx
    whole = MomentsByKind(5, 3, share)
    x, y = np.vstack([x_1, x_2, np.ones((2, 5))]), np.vstack([y_1, y_2, np.ones((2, 3))])
    whole.update([*kinds_1, *kinds_2, "d", "d"], torch.tensor(x), torch.tensor(y))
    for between in (True, False):
        merged, expected = one.merge(two).together(between=between), whole.together(between=between)
        assert merged.n == expected.n == 392
        np.testing.assert_allclose(merged.mean_x, expected.mean_x, rtol=1e-10)
        np.testing.assert_allclose(merged.sxx, expected.sxx, rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(merged.sxy, expected.sxy, rtol=1e-9, atol=1e-6)
        assert merged.syy == pytest.approx(expected.syy, rel=1e-9)
    assert torch.equal(one.together().sxx, before[0])
    assert torch.equal(two.together().sxx, before[1])


def test_a_further_kind_costs_no_matrix():
    made = MomentsByKind(4, 2, {"k0": 0.5})
    made.update([f"k{i % 50}" for i in range(200)], torch.randn(200, 4), torch.randn(200, 2))
    assert len(made.means) == 50
    assert set(made.scatters) == {"k0", None}


def test_no_rows_of_any_kind():
    empty = MomentsByKind(4, 2)
    empty.update([], torch.zeros(0, 4), torch.zeros(0, 2))
    assert empty.n == empty.together().n == 0
    assert empty.together().sxy.shape == (4, 2)
    with pytest.raises(StateError, match="2 kinds were given for 3 rows"):
        empty.update(["a", "b"], torch.zeros(3, 4), torch.zeros(3, 2))
    with pytest.raises(StateError, match="not finite"):
        empty.update(["a"], torch.full((1, 4), float("inf")), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ({"a": 10, "b": 30}, {}, {"a": 1.0, "b": 1.0}),
        ({"a": 10, "b": 30}, {"a": 0.5}, {"a": 2.0, "b": 2 / 3}),
        ({"a": 10, "b": 10, "c": 20}, {"a": 0.25}, {"a": 1.0, "b": 1.0, "c": 1.0}),
        ({"b": 30}, {"a": 0.5}, {"b": 1.0}),  # no rows of the kind named: the others have it all
        ({"a": 10}, {"a": 0.2}, {"a": 1.0}),
    ],
)
def test_kind_weights(counts, share, expected):
    assert kind_weights(counts, share) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("share", "says"),
    [
        ({"c": 0.5}, "no rows of kind 'c' to weigh; there are a, b"),
        ({"a": 0.0}, "above 0"),
        ({"a": 0.7, "b": 0.7}, "sum to at most 1"),
        ({"a": 0.2, "b": 0.2}, "exactly 1 if every kind has one"),
        ({"a": 1.0}, "leave nothing for the kind 'b'"),
    ],
)
def test_shares_that_cannot_be_given(share, says):
    with pytest.raises(FitError, match=says):
        check_share(["a", "b", "a"], share)


def test_shares_that_can_be_given():
    for share in ({}, {"a": 0.3}, {"a": 0.3, "b": 0.7}):
        check_share(["a", "b", "a"], share)


@pytest.mark.parametrize("width", [1, 160, 161, 500])
def test_gram_equals_the_whole_product(width):
    x = torch.randn((30, width), dtype=torch.float64)
    torch.testing.assert_close(gram(x), x.T @ x, rtol=1e-12, atol=1e-12)


def test_columns_side_by_side_are_the_moments_of_each():
    share = {"a": 0.5}
    g = torch.Generator().manual_seed(0)
    kinds = ["aab"[i % 3] for i in range(60)]
    x, ys = torch.randn((60, 5), generator=g), [torch.randn((60, d), generator=g) + 9 for d in (3, 4)]
    made = MomentsByKind(5, 7, share)
    for at in (list(range(40)), list(range(40, 60))):
        these = [kinds[i] for i in at]
        targets = Centred.beside([Centred.of(these, y[at], share, dtype=torch.float64) for y in ys])
        made.add(Centred.of(these, x[at], share), targets)
    for y, (start, stop) in zip(ys, ((0, 3), (3, 7)), strict=True):
        one = MomentsByKind(5, stop - start, share)
        one.update(kinds, x, y)
        mine, expected = made.columns(start, stop).together(), one.together()
        np.testing.assert_allclose(mine.mean_y, expected.mean_y)
        np.testing.assert_allclose(mine.sxy, expected.sxy, atol=1e-12)
        assert mine.syy == pytest.approx(expected.syy)
