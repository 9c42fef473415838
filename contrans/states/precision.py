"""In which number format matrix products run, and what this machine does fastest."""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch.nn.functional import linear

from contrans.errors import SpecError

PRECISIONS = ("auto", "float32", "bfloat16")
_TOKENS, _WIDTH, _WIDER = 512, 576, 1536
_ROUNDS = 7
_CLEARLY = 1.25
"""How many times faster oneDNN has to be; it is about 1 or about 2, so that two processes decide alike."""


def resolve_precision(name: str, device: torch.device) -> str:
    """Turns "auto" into what the device computes fastest without harm: bf16 where hardware has it.

    Steps are keyed by the name "auto" and not by what comes of it, so two processes on one machine have to find the
    same. The instruction set decides; a CPU that names it but multiplies slower in bf16 than in fp32 (an emulation)
    is overruled by paired products that are timed once in a process. Hardware is about twice as fast in bf16 and an
    emulation slower than fp32, so load does not turn the answer.

    Raises:
        SpecError: the name is none of `PRECISIONS`.
    """
    if name not in PRECISIONS:
        raise SpecError(f"Precision {name!r} is not known; use one of {', '.join(PRECISIONS)}.")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    fast = device.type == "cpu" and _names_bfloat16() and bfloat16_gain() >= 1.0
    return "bfloat16" if fast else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """bf16 products around a residual stream that stays in the model's own dtype, or nothing for float32.

    A residual stream in bf16 itself would lose small directions beside Gemma's massive activations.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def onednn_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """The product x · weightᵀ + bias by oneDNN, not by torch's BLAS: in fp32, on a CPU, without gradients.

    Args:
        x: [..., in].
        weight: [out, in].
        bias: [out], or None.
    """
    product: Any = torch.ops.mkldnn._linear_pointwise
    return product(x, weight, bias, "none", [], "")


def cross_product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The product xᵀy of x [n, d] and y [n, e], without gradients; in fp32 on a CPU by oneDNN where that is faster."""
    in_fp32 = x.dtype == y.dtype == torch.float32 and x.device.type == y.device.type == "cpu"
    if in_fp32 and x.numel() and y.numel() and onednn_is_faster():
        return onednn_linear(x.T, y.T, None)
    return x.T @ y


@cache
def onednn_is_faster() -> bool:
    """Whether oneDNN clearly beats torch's BLAS in fp32 products on this CPU, timed once in a process.

    MKL runs kernels of half the vector width on processors that are not Intel's.
    """
    if not (torch.backends.mkldnn.is_available() and "AVX512" in torch.backends.cpu.get_cpu_capability()):
        return False
    x, weight = _operands()
    return times_faster(lambda: onednn_linear(x, weight, None), lambda: linear(x, weight)) > _CLEARLY


@cache
def bfloat16_gain() -> float:
    """How many times faster this CPU multiplies in bf16 than in the fastest fp32, timed once in a process."""
    x, weight = _operands()
    x16, weight16 = x.bfloat16(), weight.bfloat16()
    exact = (lambda: onednn_linear(x, weight, None)) if onednn_is_faster() else (lambda: linear(x, weight))
    return times_faster(lambda: linear(x16, weight16), exact)


def times_faster(ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int = _ROUNDS) -> float:
    """The median, over paired rounds, of the other's time over ours: a machine's load slows both of a pair.

    Args:
        ours: what is timed.
        theirs: what it is compared with.
        rounds: pairs of times, after one that is not counted.
    """
    ratios = []
    for number in range(rounds + 1):
        pair = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        taken = {f: _seconds(f) for f in pair}
        ratios.append(taken[theirs] / taken[ours])
    return statistics.median(ratios[1:])


@cache
def _names_bfloat16() -> bool:
    # torch names the instruction sets it found; without them bf16 products are emulated and slower than fp32
    return torch.backends.mkldnn.is_available() and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported() and "AVX512" in torch.backends.cpu.get_cpu_capability()
    )


def _operands() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (_TOKENS, _WIDTH), (_WIDER, _WIDTH)
    x, weight = (torch.randn(shape, generator=generator, dtype=torch.float32) for shape in shapes)
    return x, weight


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - start
