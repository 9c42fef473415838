"""Capture against the paper's loop, padded batches, the bare forward, the machine's products, and repeng."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import psutil
import torch
from torch import nn

from contrans import capture, contrast_sets, corpus, load_model
from contrans.models import Model
from contrans.states.encode import batches, encode, pad_right
from contrans.states.precision import onednn_linear
from contrans.states.reading import Reader

from .ratio import Benchmark, Ratio, compare, seconds
from .repeng import Repeng

SOURCE = "pypi:smollm2-135m-instruct"
PADDED = 32
BATCH_TOKENS = 2048


@cache
def source() -> Model:
    """The source of the quickstart, in fp32."""
    return load_model(SOURCE, device="cpu", dtype="float32")


@cache
def texts() -> tuple[str, ...]:
    """256 texts as the quickstart captures them: half prompts of emotions, half passages in their template."""
    sets = contrast_sets(["emotion/*"])
    prompts = [e.prompt for s in sets for e in (*s.split("refine").positives, *s.split("refine").negatives)]
    prompts = list(dict.fromkeys(prompts))
    prompts = [prompts[i * len(prompts) // 128] for i in range(128)]
    return (*prompts, *corpus("passages").take(128).wrap(sets[0].template).texts)


def ours(model: Model | None = None) -> object:
    """Last-token states of all blocks, as `capture` reads them."""
    return capture(model or source(), texts(), batch_tokens=BATCH_TOKENS)


def paper(model: Model | None = None) -> object:
    """The paper's loop: one text at a time, all hidden states, the last token of each."""
    model = model or source()
    rows = []
    with torch.inference_mode():
        for text in texts():
            out = model.module(**model.tokenizer(text, return_tensors="pt"), output_hidden_states=True)
            rows.append(torch.stack([h[0, -1] for h in out.hidden_states[1:]]))
    return torch.stack(rows)


def padded(model: Model | None = None) -> object:
    """Plain transformers: 32 texts at once in the order given, padded, all hidden states, the last token of each."""
    model = model or source()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(texts()), PADDED):
            encoded = [model.tokenizer(t)["input_ids"] for t in texts()[start : start + PADDED]]
            ids, mask = pad_right(encoded, model.pad_token_id)
            out = model.module(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            at = torch.arange(len(ids)), mask.sum(1) - 1
            rows.append(torch.stack([h[at] for h in out.hidden_states[1:]], dim=1))
    return torch.cat(rows)


class _Stop(Exception):
    pass


def bare(model: Model, groups: list[tuple[torch.Tensor, torch.Tensor]], *, as_ours: bool) -> None:
    """A forward pass of token batches, ended after the last block; no state is kept.

    Args:
        model: the model.
        groups: ids and masks.
        as_ours: whether linear layers multiply as in `capture`, else as torch does.
    """

    def stop(*_: object) -> None:
        raise _Stop

    reader = Reader(model, range(model.n_blocks), "float32")
    handle = model.blocks[-1].register_forward_hook(stop)
    try:
        for ids, mask in groups:
            inputs = reader.inputs(ids, mask)
            with torch.inference_mode(), suppress(_Stop):
                if as_ours:
                    with reader.products.active():
                        model.module(**inputs)
                else:
                    model.module(**inputs)
    finally:
        handle.remove()


def token_batches(model: Model) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and masks of the batches that `capture` makes."""
    encoded = encode(model, texts())
    most = Reader(model, [0], "float32").most_tokens(BATCH_TOKENS)
    groups = batches(encoded.lengths, batch_tokens=most)
    return [pad_right([encoded.ids[i] for i in group], model.pad_token_id) for group in groups]


def vs_paper(rounds: int) -> Ratio:
    """Ours against the paper's loop."""
    return compare(ours, paper, rounds=rounds)


def vs_padded(rounds: int) -> Ratio:
    """Ours against padded batches, in time and in memory above the weights."""
    mine, other = (memory_above_weights(side) for side in ("ours", "padded"))
    notes = {"memory_mib": mine / 2**20, "memory_against_mib": other / 2**20, "memory_ratio": mine / other}
    return compare(ours, padded, rounds=rounds, notes={k: round(v, 3) for k, v in notes.items()})


def vs_bare(rounds: int) -> Ratio:
    """Ours against the forward pass alone, which multiplies as ours does; by torch's own products in a note."""
    forward = partial(bare, source(), token_batches(source()))
    found = compare(ours, partial(forward, as_ours=True), rounds=rounds)
    plain = seconds(partial(forward, as_ours=False)) / seconds(ours)
    return Ratio(found.values, found.ours, found.theirs, {"torch_products_over_ours": round(plain, 3)})


def gemm_share(rounds: int) -> Ratio:
    """The time of the forward's linear products alone, by the faster of the machine's two ways, over our time."""
    model = source()
    # every layer of the blocks is multiplied once by every token, padding included
    layers = [m for block in model.blocks for m in block.modules() if isinstance(m, nn.Linear)]
    shapes = [ids.shape for ids, _ in token_batches(model)]
    inputs = {(*shape, m.in_features): torch.randn(*shape, m.in_features) for shape in shapes for m in layers}

    def products(multiply: Callable[..., torch.Tensor]) -> None:
        with torch.inference_mode():
            for shape in shapes:
                for layer in layers:
                    multiply(inputs[(*shape, layer.in_features)], layer.weight, layer.bias)

    ways = [partial(products, multiply) for multiply in (nn.functional.linear, onednn_linear)]
    fastest = min(ways, key=lambda way: min(seconds(way) for _ in range(2)))
    found = compare(ours, fastest, rounds=rounds)
    flop = 2 * sum(b * t * m.in_features * m.out_features for b, t in shapes for m in layers)
    reached = sorted(found.ours)[len(found.ours) // 2]
    peak = sorted(found.theirs)[len(found.theirs) // 2]
    notes = {"gflops": round(flop / reached / 1e9, 1), "gflops_peak": round(flop / peak / 1e9, 1)}
    return Ratio(found.values, found.ours, found.theirs, notes)


def vs_repeng(rounds: int) -> Ratio:
    """Ours against repeng's extraction in a process of its own."""
    home = Path.home() / ".cache" / "contrans" / "benchmarks"
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(source().module.config._name_or_path)
    with Repeng(folder, texts(), threads=torch.get_num_threads(), home=home) as theirs:
        return compare(ours, theirs, rounds=rounds)


def memory_above_weights(side: str) -> int:
    """Bytes that a side needs at its peak above a loaded and warm model, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (side, torch.get_num_threads()))


def _peak(side: str, threads: int) -> int:
    torch.set_num_threads(threads)
    model, process = source(), psutil.Process()
    capture(model, ["one text"])
    before, highest, done = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.is_set():
            highest = max(highest, process.memory_info().rss)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        {"ours": ours, "padded": padded}[side](model)
    finally:
        done.set()
        watcher.join()
    return highest - before


BENCHMARKS = [
    Benchmark("capture_vs_paper", "the paper's loop, one text at a time", 2.5, vs_paper),
    Benchmark("capture_vs_padded", "padded batches of 32 with output_hidden_states", 2.0, vs_padded),
    Benchmark("capture_vs_bare", "the bare forward of the same token batches", 0.97, vs_bare),
    Benchmark("capture_gemm_share", "the forward's matrix products alone", 0.75, gemm_share),
    Benchmark("capture_vs_repeng", "repeng 0.4.0's extraction", 2.0, vs_repeng),
]
