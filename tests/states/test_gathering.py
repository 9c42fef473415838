"""Rows taken out of block outputs, against NumPy."""

import numpy as np
import pytest
import torch

from contrans.states.gathering import Gather, RowStore


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "ranges",
    [[(0, 1), (4, 5), (2, 3)], [(0, 5), (4, 5), (1, 3)], [(1, 4), (1, 4), (1, 4)]],
)
def test_means_over_ranges(ranges, dtype):
    hidden = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    made = Gather(ranges)(hidden)
    assert made.dtype == torch.float32
    exact = hidden.double().numpy()
    expected = np.stack([exact[i, a:b].mean(0) for i, (a, b) in enumerate(ranges)])
    np.testing.assert_allclose(made.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_what_lies_outside_a_range_does_not_count():
    hidden = torch.full((2, 4, 3), float("nan"))
    hidden[0, 1:3], hidden[1, 0] = 2.0, 5.0
    assert Gather([(1, 3), (0, 1)])(hidden).tolist() == [[2.0] * 3, [5.0] * 3]


def test_no_value_is_read_back_from_the_device():
    hidden = torch.empty((2, 4, 3), device="meta", dtype=torch.float16)
    made = Gather([(1, 3), (0, 1)])(hidden)
    assert (made.shape, made.dtype, made.device.type) == ((2, 3), torch.float32, "meta")


def test_rows_come_back_in_the_texts_order_and_the_store_starts_anew():
    states = torch.arange(10.0).reshape(5, 2)
    into = {7: torch.full((6, 2), -1.0)}
    store = RowStore([7], 3, 2, pinned=False)
    for first, batches in ((1, [[2, 0], [1]]), (4, [[1], [0]])):
        for group in batches:
            store.begin(group)
            store.put(7, states[[first - 1 + i for i in group]])
        assert store.drain(into, first=first) == []
    assert into[7][0].tolist() == [-1.0, -1.0]
    assert torch.equal(into[7][1:], states)


def test_blocks_that_are_not_finite_are_named_once():
    store = RowStore([1, 2], 2, 1, pinned=False)
    into = {b: torch.empty(2, 1) for b in (1, 2)}
    for i, value in enumerate((float("inf"), 0.0)):
        store.begin([i])
        store.put(1, torch.zeros(1, 1))
        store.put(2, torch.tensor([[value]]))
    assert store.drain(into, first=0) == [2]
    store.begin([0])
    store.put(1, torch.zeros(1, 1))
    store.put(2, torch.zeros(1, 1))
    assert store.drain(into, first=0) == []
