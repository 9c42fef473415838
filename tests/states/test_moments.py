"""Streaming moments against NumPy on all rows at once."""

import numpy as np
import pytest
import torch

from contrans.errors import StateError
from contrans.states import Moments


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
