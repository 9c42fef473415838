"""Pairs of blocks: by depth as a table, by CKA against a slow computation, and in the order of their merit."""

import numpy as np
import pytest
import torch

from contrans.errors import BlockError
from contrans.maps.selection import linear_cka, pairs_within, ranked_pairs


def test_pairs_lie_at_about_the_same_depth():
    assert pairs_within([3, 7], [1, 4, 8], 10, 10, tolerance=0.15) == [(3, 4), (7, 8)]
    assert pairs_within([3, 7], [1, 4, 8], 10, 10, tolerance=0.2) == [(3, 1), (3, 4), (7, 8)]
    assert pairs_within([0], [9], 10, 10, tolerance=0.1) == [(0, 9)]
    assert pairs_within([27, 29], [14, 15], 30, 18) == [(27, 14), (27, 15), (29, 14), (29, 15)]
    with pytest.raises(BlockError, match="No source block"):
        pairs_within([0, 1], [8, 9], 10, 10)


def test_cka_equals_the_alignment_of_gram_matrices():
    g = torch.Generator().manual_seed(0)
    x, noise = torch.randn((60, 5), generator=g), torch.randn((60, 8), generator=g)
    y = x @ torch.randn((5, 8), generator=g) + noise
    centring = np.eye(60) - 1 / 60
    k, m = (centring @ (a.double() @ a.double().T).numpy() @ centring for a in (x, y))
    expected = (k * m).sum() / np.linalg.norm(k) / np.linalg.norm(m)
    assert linear_cka(x, y) == pytest.approx(expected, abs=1e-10)
    q = torch.linalg.qr(torch.randn((5, 5), generator=g))[0]
    assert linear_cka(x, 3 * x @ q + 7) == pytest.approx(1)
    assert linear_cka(x, torch.ones(60, 3)) == 0


def test_a_pair_needs_separation_and_alike_states():
    g = torch.Generator().manual_seed(1)
    x = {b: torch.randn((200, 6), generator=g) for b in (0, 1)}
    y = {0: x[0] + 0.1 * torch.randn((200, 6), generator=g), 1: torch.randn((200, 6), generator=g), 2: x[1]}
    pairs = [(s, t) for s in x for t in y]
    ranked = ranked_pairs(pairs, x, y, {0: 2.0, 1: 1.0})
    assert (ranked[0].source, ranked[0].target) == (0, 0)
    assert (ranked[1].source, ranked[1].target) == (1, 2)
    assert ranked[0].cka > 0.9
    # without any separation the states alone decide
    first = ranked_pairs(pairs, x, y, {0: -0.1, 1: -0.2})[0]
    assert (first.source, first.target) == (1, 2)
