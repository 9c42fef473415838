"""In which number format matrix products run, and what this machine does fastest."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

from contrans.errors import SpecError

PRECISIONS = ("auto", "float32", "bfloat16")


@cache
def _has_fast_bfloat16() -> bool:
    # torch names the instruction sets it found; without them bf16 products are emulated and slower than fp32
    return torch.backends.mkldnn.is_available() and bool(
        torch.ops.mkldnn._is_mkldnn_bf16_supported() and "AVX512" in torch.backends.cpu.get_cpu_capability()
    )


def resolve_precision(name: str, device: torch.device) -> str:
    """Turns "auto" into what the device computes fastest without harm: bf16 where hardware has it.

    Raises:
        SpecError: the name is none of `PRECISIONS`.
    """
    if name not in PRECISIONS:
        raise SpecError(f"Precision {name!r} is not known; use one of {', '.join(PRECISIONS)}.")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if device.type == "cpu" and _has_fast_bfloat16() else "float32"


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """bf16 products around a residual stream that stays in the model's own dtype, or nothing for float32.

    A residual stream in bf16 itself would lose small directions beside Gemma's massive activations.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
