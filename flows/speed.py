"""How fast this machine multiplies matrices of a model's shape."""

import time

from flows.pool import device_kind
from flows.spec import Compute

_SECONDS = 0.4
_WIDEST = 2048  # a CPU is no faster on wider products, and they take seconds
_OPERATIONS = 8e9  # of one product on a CPU


class Speeds:
    """Speeds of matrix products of models' shapes, each shape measured once.

    Attributes:
        gflops: 10⁹ operations a second by model, for those that were asked for.
    """

    def __init__(self) -> None:
        self.gflops: dict[str, float] = {}
        self._measured: dict[tuple[int, int, str, str], float] = {}

    def of(self, reference: str, width: int, compute: Compute) -> float:
        """The speed for a model, in 10⁹ operations a second.

        Args:
            reference: The model.
            width: Of its residual stream.
            compute: Where and in which format it is to run.
        """
        device, precision = device_kind(compute.device), precision_here(compute)
        rows = min(compute.batch_tokens, 2048)
        if device == "cpu":
            width = min(width, _WIDEST)
            rows = min(rows, round(_OPERATIONS / (8 * width**2)))
        shape = (rows, width, device, precision)
        if shape not in self._measured:
            self._measured[shape] = _measured(*shape)
        self.gflops[reference] = self._measured[shape]
        return self.gflops[reference]


def precision_here(compute: Compute) -> str:
    """The format that products run in on this machine."""
    import torch

    from contrans.states.precision import resolve_precision

    return resolve_precision(compute.precision, torch.device(device_kind(compute.device)))


def _measured(rows: int, width: int, device: str, precision: str) -> float:
    """10⁹ operations a second on products [rows, width] × [width, 4 width]."""
    import torch

    dtype = getattr(torch, precision)
    a = torch.randn(rows, width, device=device, dtype=dtype)
    b = torch.randn(width, 4 * width, device=device, dtype=dtype)

    def product() -> None:
        # reading one value waits for a GPU to finish
        (a @ b)[0, 0].item()

    product()
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < _SECONDS:
        product()
        done += 1
    seconds = time.perf_counter() - start
    return done * 2.0 * rows * width * 4 * width / seconds / 1e9
