"""Modules that run another forward pass for a while."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced_forwards(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Modules run other functions within; what was there before, also accelerate's wrappers, is put back.

    Args:
        forwards: by module what it runs in the place of its `forward`.
    """
    # accelerate keeps its wrapper in the instance
    before = {module: vars(module).get("forward") for module in forwards}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module, old in before.items():
            if old is None:
                vars(module).pop("forward", None)
            else:
                module.forward = old
