"""Capture on a CUDA device: as fast as the bare forward, without a wait of the host, in flat memory."""

import statistics
import time
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn

from contrans.models import Model
from contrans.states import capture
from contrans.states.encode import batches, encode, pad_right
from contrans.states.gathering import Gather, RowStore
from contrans.states.reading import Reader, to_device
from tests.tiny import tiny

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA = torch.device("cuda")
TEXTS = [f"one stone alone on a mountain {'and the weather there ' * (i % 6)}" for i in range(512)]


def on_gpu(**settings: Any) -> Model:
    model = tiny("llama", **settings)
    nn.Module.to(model.module, CUDA)
    return model


class _Stop(Exception):
    pass


def test_states_are_those_of_the_cpu():
    made, expected = capture(on_gpu(), TEXTS[:32]), capture(tiny("llama"), TEXTS[:32])
    spans = [(1, 5)] * 32
    means, expected_means = capture(on_gpu(), TEXTS[:32], spans=spans), capture(tiny("llama"), TEXTS[:32], spans=spans)
    for block in range(4):
        assert made[block].device.type == "cpu"
        torch.testing.assert_close(made[block], expected[block], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(means[block], expected_means[block], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_host_never_waits_inside_the_batch_loop(precision):
    model = on_gpu()
    encoded = encode(model, TEXTS)
    reader = Reader(model, range(4), precision)
    store = RowStore(range(4), len(TEXTS), model.hidden_size, pinned=True)
    groups = batches(encoded.lengths, batch_tokens=1024)
    reader.read([encoded.ids[i] for i in groups[0]], lambda _block, _hidden: None)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for group in groups:
            gather = Gather([(1, encoded.content[i][1]) for i in group])
            store.begin(group)
            reader.read([encoded.ids[i] for i in group], lambda block, h, g=gather: store.put(block, g(h)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    into = {b: torch.full((len(TEXTS), model.hidden_size), float("nan")) for b in range(4)}
    assert store.drain(into, first=0) == []
    assert all(bool(torch.isfinite(rows).all()) for rows in into.values())


def test_memory_is_flat_over_corpus_size():
    model = on_gpu(hidden_size=256)

    def peak(n: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        capture(model, TEXTS[5::6][:1] * n, batch_tokens=2048)
        return torch.cuda.max_memory_allocated() - before

    peak(64)
    assert peak(4096) < 1.1 * peak(256)


def test_at_least_nine_tenths_of_the_bare_forward():
    model = on_gpu(hidden_size=1024, layers=8, intermediate_size=4096, head_dim=256)
    encoded = encode(model, TEXTS * 4)
    groups = batches(encoded.lengths, batch_tokens=8192)

    def bare() -> None:
        def stop(*_: object) -> None:
            raise _Stop

        handle = model.blocks[-1].register_forward_hook(stop)
        with torch.inference_mode():
            for group in groups:
                ids, _ = pad_right([encoded.ids[i] for i in group], model.pad_token_id)
                with suppress(_Stop):
                    model.module(input_ids=to_device(ids, CUDA), use_cache=False)
        handle.remove()
        torch.cuda.synchronize()

    def ours() -> None:
        reader = Reader(model, range(8), "float32")
        store = RowStore(range(8), len(encoded), model.hidden_size, pinned=True)
        into = {b: torch.empty((len(encoded), model.hidden_size)) for b in range(8)}
        for group in groups:
            gather = Gather([(encoded.content[i][1] - 1, encoded.content[i][1]) for i in group])
            store.begin(group)
            reader.read([encoded.ids[i] for i in group], lambda block, h, g=gather: store.put(block, g(h)))
        store.drain(into, first=0)

    ratios = []
    for _ in range(6):
        start = time.perf_counter()
        bare()
        middle = time.perf_counter()
        ours()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    assert statistics.median(ratios[1:]) >= 0.9
