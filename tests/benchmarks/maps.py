"""Maps between all blocks of two models against least squares pair by pair, and one map between wide models."""

import resource
import subprocess
import sys
import threading
from itertools import product
from pathlib import Path

import numpy as np
import torch

from contrans.maps import fit_states
from contrans.maps.estimators.ridge import RHO_GRID
from contrans.models import ModelRecord
from contrans.states.by_kind import BLOCK_ROWS

from .ratio import Benchmark, Ratio, compare, seconds

N, DS, DT, SOURCES, TARGETS = 20_000, 576, 640, 30, 18
RANK, SAMPLE = 100, 3
WIDE = (40_000, 4096, 8192)
SOLVES = SOURCES * TARGETS * len(RHO_GRID)


def states(blocks: int, n: int, width: int, seed: int) -> dict[int, torch.Tensor]:
    """Low rank plus noise per block, float32 [n, width], about a mean a hundred times the noise; factors are shared."""
    factors = torch.randn((n, RANK), generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(seed)
    return {
        b: (factors @ torch.randn((RANK, width), generator=g))
        .add_(torch.randn((n, width), generator=g))
        .add_(100 * torch.randn(width, generator=g))
        for b in range(blocks)
    }


def record(name: str, width: int, blocks: int) -> ModelRecord:
    """A model of these sizes."""
    return ModelRecord(name, name, None, name, "made", width, blocks, None, "float32")


def fit(x: dict[int, torch.Tensor], y: dict[int, torch.Tensor]) -> object:
    """Our maps of all pairs of blocks, λ of each chosen among 15."""
    n = len(x[0])
    models = (record(f"m{s[0].shape[1]}", s[0].shape[1], len(s)) for s in (x, y))
    return fit_states(
        x, y, documents=[str(i) for i in range(n)], **dict(zip(("source", "target"), models, strict=True))
    )


def scipy_seconds(x: torch.Tensor, y: torch.Tensor, rho: float, dtype: type) -> float:
    """Of one ridge map by SciPy: least squares on centred rows below which √(nλ)·I stands."""
    from scipy.linalg import lstsq

    def solve() -> None:
        a, b = x.numpy().astype(dtype), y.numpy().astype(dtype)
        a, b = a - a.mean(0), b - b.mean(0)
        penalty = np.sqrt(rho * (a * a).sum() / a.shape[1]) * np.eye(a.shape[1], dtype=dtype)
        lstsq(np.vstack([a, penalty]), np.vstack([b, np.zeros((len(penalty), b.shape[1]), dtype)]), check_finite=False)

    return seconds(solve)


def maps_vs_per_pair(rounds: int) -> Ratio:
    """A whole fit of ours in each round, and a sample of SciPy's solves that stands for all of them."""
    x, y = states(SOURCES, N, DS, 1), states(TARGETS, N, DT, 2)
    every = list(product(x, y, RHO_GRID))
    mine, theirs, single = [], [], []
    for number in range(rounds):
        sample = every[number :: len(every) // SAMPLE][:SAMPLE]
        per_solve = sum(scipy_seconds(x[s], y[t], rho, np.float64) for s, t, rho in sample) / len(sample)
        theirs.append(per_solve * SOLVES)
        mine.append(seconds(lambda: fit(x, y)))
        s, t, rho = sample[0]
        single.append(scipy_seconds(x[s], y[t], rho, np.float32) * SOLVES / mine[-1])
    products = 2 * N * DS * DT * SOURCES * TARGETS / min(mine)
    notes = {
        "scipy_seconds_per_solve": round(float(np.median(theirs)) / SOLVES, 3),
        "ratio_to_float32_lstsq": round(float(np.median(single)), 1),
        "gflop_per_second_of_cross_products": round(products / 1e9, 1),
    }
    return Ratio(tuple(b / a for a, b in zip(mine, theirs, strict=True)), tuple(mine), tuple(theirs), notes)


def wide_states() -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    """One source and one target block of wide models."""
    n, ds, dt = WIDE
    return states(1, n, ds, 1), states(1, n, dt, 2)


def peak_above_rows() -> float:
    """GiB by which the resident memory of this process grows while one wide map is fitted."""
    x, y = wide_states()
    before = peak = _resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    fit(x, y)
    done.set()
    watcher.join()
    return (peak - before) / 2**30


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * resource.getpagesize()


def big_map(rounds: int) -> Ratio:
    """One wide map against the products xᵀx and xᵀy of its rows alone, in float64 as the moments are."""
    code = f"import torch; torch.set_num_threads({torch.get_num_threads()}); from {__name__} import peak_above_rows"
    done = subprocess.run([sys.executable, "-c", f"{code}; print(peak_above_rows())"], capture_output=True, check=True)
    x, y = wide_states()
    a, b = x[0], y[0]

    def products() -> None:
        for p, q in zip(a.split(BLOCK_ROWS), b.split(BLOCK_ROWS), strict=True):
            torch.matmul(p.double().T, p.double())
            torch.matmul(p.double().T, q.double())

    # the first runs tell how long a round is
    ours, single = seconds(lambda: fit(x, y)), seconds(lambda: (torch.matmul(a.T, a), torch.matmul(a.T, b)))
    notes = {
        "gib_above_the_rows": round(float(done.stdout.split()[-1]), 2),
        "ratio_to_float32_products": round(single / ours, 3),
    }
    return compare(lambda: fit(x, y), products, rounds=rounds if ours < 60 else min(rounds, 3), warm=0, notes=notes)


BENCHMARKS = [
    Benchmark(
        "maps_vs_per_pair",
        f"scipy.linalg.lstsq in float64 per pair and λ, {SAMPLE} solves a round times {SOLVES:,} / {SAMPLE}",
        150,
        maps_vs_per_pair,
        needs_models=False,
    ),
    Benchmark(
        "big_map",
        f"the products xᵀx and xᵀy of {WIDE[0]:,} rows alone, float64, {WIDE[1]} → {WIDE[2]}",
        0.5,
        big_map,
        needs_models=False,
    ),
]
