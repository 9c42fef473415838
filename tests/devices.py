"""Fake devices: tensors that lie on one of two devices and refuse to meet one of another place, as on GPUs.

Their numbers are kept and multiplied on the CPU, so that results can be compared with those of a model that is whole.
What reads from one device and writes to another must say so by `.to(device)`, or fails as it does on real ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

TYPE = "privateuseone"
"""What torch calls devices that it does not know."""
FIRST, SECOND = torch.device(TYPE, 0), torch.device(TYPE, 1)
_MOVES = {"aten::to", "aten::_to_copy", "aten::copy_", "aten::copy"}
_TAKES_CPU_INDICES = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


@contextmanager
def fake_devices() -> Iterator[None]:
    """Within it tensors are made on and moved to the two devices."""
    _announce()
    with _Making():
        yield


@cache
def _announce() -> torch.library.Library:
    """Tells torch, for as long as the process lives, what it asks of a device past Python's dispatch."""
    _setup_privateuseone_for_python_backend()
    library = torch.library.Library("aten", "IMPL")
    for name in ("empty.memory_format", "empty_strided", "_copy_from"):
        library.impl(name, _KERNELS[name], "PrivateUse1")
    return library


class Lying(torch.Tensor):
    """A tensor on a fake device.

    Attributes:
        inner: its numbers, on the CPU.
    """

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> Self:
        with torch.inference_mode(False):  # what a mode of torch's dispatch gives must have a version
            made: Any = torch.Tensor._make_wrapper_subclass(  # pyright: ignore[reportAttributeAccessIssue]
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=device,
            )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, *args, **(kwargs or {}))


class _Making(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        every = tree_iter((args, kwargs or {}))
        if any(isinstance(v, Lying) or (isinstance(v, torch.device) and v.type == TYPE) for v in every):
            return _run(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Runs an operation on the CPU, and puts what comes out where it belongs."""
    name = op._schema.name
    every = list(tree_iter((args, kwargs)))
    tensors = [v for v in every if isinstance(v, torch.Tensor)]
    named = next((v for v in every if isinstance(v, torch.device)), None)
    lying = {id(t.inner): t for t in tensors if isinstance(t, Lying)}
    if named is not None:
        where = named
    elif name == "aten::to":  # another tensor may say where to
        where = tensors[-1].device
    else:
        where = tensors[0].device if name in _MOVES else next(iter(lying.values())).device
    if name not in _MOVES:
        _check_together(name, tensors)
    if name == "aten::_fused_sdp_choice":
        return 0  # attention by plain products, which every device has
    plain_args, plain_kwargs = tree_map(_plain, (args, kwargs))
    out = op(*plain_args, **plain_kwargs)

    def placed(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        same = lying.get(id(value))
        if same is not None and same.device == where:
            return same
        if same is not None:  # moved, but the CPU gave the same tensor back
            value = value.clone()
        return Lying(value, where) if where.type == TYPE else value

    return tree_map(placed, out)


def _plain(value: Any) -> Any:
    if isinstance(value, Lying):
        return value.inner
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == TYPE else value


def _check_together(name: str, tensors: list[torch.Tensor]) -> None:
    places = {
        t.device
        for t in tensors
        # a single number of the CPU may meet any device, and so may indices
        if t.device.type != "cpu" or (t.ndim > 0 and (name not in _TAKES_CPU_INDICES or t.is_floating_point()))
    }
    if len(places) > 1:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} found {sorted(map(str, places))}"
        )


def _empty(size: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> Lying:
    return Lying(torch.empty(size, dtype=dtype, device="cpu"), device)


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, device: Any = None, **_: Any) -> Lying:
    return Lying(torch.empty_strided(size, stride, dtype=dtype, device="cpu"), device)


def _copy_from(source: torch.Tensor, to: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _plain(to).copy_(_plain(source))
    return to


_KERNELS = {"empty.memory_format": _empty, "empty_strided": _empty_strided, "_copy_from": _copy_from}
