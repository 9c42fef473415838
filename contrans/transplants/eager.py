"""Compiled models: hooks put in or taken out after compilation would be overlooked there, so they run uncompiled."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

import torch
from torch import nn

log = logging.getLogger(__name__)

_warned: WeakSet[nn.Module] = WeakSet()


@contextmanager
def uncompiled(module: nn.Module, name: str) -> Iterator[None]:
    """Runs eagerly whatever is compiled while the context is open, and says so once if the model is.

    Compiled code does not ask whether a module got or lost a hook (torch skips these guards), so a transplant in
    a compiled model would do nothing, and one that was there at compilation would never end. `generate`
    compiles by itself with a static cache, so this holds for every model. It acts on the whole process.

    Args:
        module: the model.
        name: what it is called in the warning.
    """
    if module not in _warned and is_compiled(module):
        _warned.add(module)
        log.warning("%s is compiled; it runs uncompiled, and slower, while a transplant is in.", name)
    with torch.compiler.set_stance("force_eager"):
        yield


def is_compiled(module: nn.Module) -> bool:
    """Whether a model or a part of it was given to `torch.compile`, as a wrapper, in place or by its forward."""
    return any(
        isinstance(m, torch._dynamo.eval_frame.OptimizedModule)
        or m._compiled_call_impl is not None
        or hasattr(vars(m).get("forward"), "_torchdynamo_orig_callable")
        or "_compiled_call" in vars(m)
        for m in module.modules()
    )
