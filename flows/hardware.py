"""Machines that a plan can be made for without having them: published peaks, and what of them a forward pass reaches.

The peaks are the makers' for dense bf16 products. Long batches of a decoder reach about half of them on one GPU in
well-tuned code; `UTILISATION` is what plain transformers does with texts of some thirty tokens in batches of some
thousands, and is an assumption, not a measurement.
"""

import math
from dataclasses import dataclass

from contrans.errors import SpecError
from flows.speed import Rates

UTILISATION = 0.35
"""Share of the peak that blocks reach."""
_HEAD = 0.2  # of the peak: the softmax over the vocabulary waits for memory
_READ = 0.6  # of the peak of reading memory, while one token after another is written
_LAUNCH = 0.7e-3  # seconds of a block in a pass of one token: plain transformers starts its kernels one by one
_LOADING = 1e9  # bytes a second, from a local disk
_FILLED = 0.9  # of a GPU's memory


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Attributes:
        title: Its full name.
        flops: Peak of dense bf16 products, operations a second.
        memory: Bytes.
        bandwidth: Peak of reading its memory, bytes a second.
    """

    title: str
    flops: float
    memory: float
    bandwidth: float

    @property
    def rates(self) -> Rates:
        """How fast it is taken to be."""
        used = UTILISATION * self.flops
        return Rates(
            capture=used,
            scoring=used,
            head=_HEAD * self.flops,
            token=0.0,
            loading=_LOADING,
            writing=_READ * self.bandwidth / 2,  # weights of two bytes
            launch=_LAUNCH,
        )

    def needed(self, n_bytes: float) -> int:
        """How many of them hold so many bytes."""
        return max(1, math.ceil(n_bytes / (_FILLED * self.memory)))


GPUS = {
    "a100": Gpu("A100 SXM 80 GB", 312e12, 80e9, 2.04e12),
    "h100": Gpu("H100 SXM 80 GB", 989e12, 80e9, 3.35e12),
    "h200": Gpu("H200 SXM 141 GB", 989e12, 141e9, 4.8e12),
    "l40s": Gpu("L40S 48 GB", 362e12, 48e9, 0.864e12),
    "mi300x": Gpu("MI300X 192 GB", 1307e12, 192e9, 5.3e12),
}
"""GPUs by what `contrans plan --on` calls them."""
NAMES = ("here", *GPUS)


def gpu(name: str) -> Gpu | None:
    """The GPU of a name; None for "here", this machine.

    Raises:
        SpecError: There is no such name.
    """
    if name.casefold() in ("here", *GPUS):
        return GPUS.get(name.casefold())
    raise SpecError(f"There is no machine {name!r} to plan for; use one of {', '.join(NAMES)}.")
