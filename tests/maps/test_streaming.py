"""Maps on all tokens: the streaming moments against all rows at once, and memory that stays."""

import gc

import numpy as np
import pytest
import torch

from contrans.errors import FitError
from contrans.maps import Corpus, fit_map
from contrans.maps.paired import held_out_documents
from contrans.maps.streaming import stream_moments
from contrans.states import iter_states, pair_by_offset
from tests.tiny import tiny

WORDS = ["the", "cat", "and", "sat", "there", "with", "their", "mother", "she", "thinks", "is", "stone", "alone", "on"]


def texts(n: int) -> Corpus:
    g = torch.Generator().manual_seed(1)
    lines = [" ".join(WORDS[int(i)] for i in torch.randint(len(WORDS), (7,), generator=g)) for _ in range(n)]
    return Corpus("made", tuple(lines), tuple(f"d{k // 2}" for k in range(n)), ("plain",) * n)


def rows(model, lines, block):
    out = {}
    for batch in iter_states(model, lines, blocks=[block]):
        for row, i in enumerate(batch.indices):
            out[i] = (batch.hidden[block][row, : int(batch.lengths[row])].double().numpy(), batch.ends[row])
    return out


def test_equals_all_rows_at_once_across_tokenizers_and_chunks():
    source, target = tiny("llama"), tiny("gpt2", vocab="pieces", hidden_size=48)
    c = texts(300)
    got = stream_moments(source, target, c, source_blocks=[2], target_blocks=[1])[2, 1]
    of_source, of_target = rows(source, c.texts, 2), rows(target, c.texts, 1)
    aside = held_out_documents(c.documents, 0.2, 0)
    x, y = [], []
    for i, document in enumerate(c.documents):
        p = pair_by_offset(of_source[i][1], of_target[i][1])
        if document not in aside:
            x.append(of_source[i][0][p.source])
            y.append(of_target[i][0][p.target])
    a, b = np.concatenate(x), np.concatenate(y)
    assert got.train.n == len(a)
    assert got.held.n > 0
    np.testing.assert_allclose(got.train.mean_x, a.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.train.sxy, (a - a.mean(0)).T @ (b - b.mean(0)), rtol=1e-4, atol=1e-2)
    assert got.target_norm == pytest.approx(np.median(np.linalg.norm(b, axis=1)), rel=0.05)


def test_a_map_on_all_tokens():
    source, target = tiny("llama"), tiny("llama", seed=1)
    m = fit_map(source, target, texts(200), source_blocks=[1, 2], target_blocks=[2], tokens="all")
    assert sorted(m.maps) == [(1, 2), (2, 2)]
    assert m[1, 2].info["n"] > 1000
    same = fit_map(source, source, texts(200), source_blocks=[2], target_blocks=[2], tokens="all")[2, 2]
    torch.testing.assert_close(same.weight, torch.eye(32), rtol=0, atol=1e-3)
    with pytest.raises(FitError, match="from their moments alone"):
        fit_map(source, target, texts(20), tokens="all", estimator="paper")
    with pytest.raises(FitError, match="'last' or 'all'"):
        fit_map(source, target, texts(20), tokens="some")


def test_memory_does_not_grow_with_the_corpus():
    source, target = tiny("llama"), tiny("llama", seed=1)

    def grown(n: int) -> int:
        alive = 0  # values in all tensors at once: they live outside of Python's allocator

        def count(_tokens: int) -> None:
            nonlocal alive
            alive = max(alive, sum(t.numel() for t in gc.get_objects() if type(t) is torch.Tensor))

        stream_moments(source, target, texts(n), source_blocks=[2], target_blocks=[2], batch_tokens=512, progress=count)
        return alive

    grown(256)
    assert grown(640) < 1.1 * grown(256)
