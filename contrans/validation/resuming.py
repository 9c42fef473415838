"""Running only the blocks above one, in the model's own forward pass: what is switched off, and for how long.

Each context manager changes the model for one pass and puts back what was there, whatever happens in between.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from contrans.errors import ModelError
from contrans.models import Model
from contrans.models.forwards import replaced_forwards

_FEED_FORWARD = ("mlp", "feed_forward", "ffn", "block_sparse_moe")


class _Stop(Exception):
    """Ends a forward pass once the transplanted block has run."""


def language_head(model: Model) -> Any:
    """The module that turns states into logits.

    Raises:
        ModelError: the model has none.
    """
    head = model.module.get_output_embeddings()
    if head is None:
        raise ModelError(f"{model.name} has no language-model head, so it cannot be scored; use a decoder model.")
    return head


def leaving_block(model: Model, block: int, **inputs: Any) -> tuple[torch.Tensor, bool]:
    """Runs a model up to a block: the block's output [batch, tokens, d], and whether it stands in a tuple."""
    kept: list[tuple[torch.Tensor, bool]] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        bare = isinstance(output, torch.Tensor)
        kept.append((output if bare else output[0], not bare))
        raise _Stop

    handle = model.blocks[block].register_forward_hook(hook)
    try:
        with suppress(_Stop):
            model.module(**inputs)
    finally:
        handle.remove()
    return kept[0]


@contextmanager
def short_circuit(model: Model, block: int, state: torch.Tensor, *, tuples: bool) -> Iterator[None]:
    """Blocks up to one pass their input on; that one gives a state.

    Args:
        model: the model.
        block: the block that gives the state.
        state: what it gives [batch, tokens, d].
        tuples: whether the model's blocks give tuples.
    """
    wrap: Callable[[torch.Tensor], Any] = (lambda h: (h,)) if tuples else (lambda h: h)

    def passing(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return wrap(hidden_states)

    def giving(*args: Any, **kwargs: Any) -> Any:
        return wrap(state)

    blocks = model.blocks[: block + 1]
    with replaced_forwards({**dict.fromkeys(blocks, passing), blocks[-1]: giving}):
        yield


@contextmanager
def last_block_for(model: Model, wanted: torch.Tensor) -> Iterator[None]:
    """The last block's feed-forward layer runs only on the tokens whose output is read; its attention is whole.

    No token reads another one's output after the last attention, so what is left out could be seen by none.

    Args:
        model: the model.
        wanted: bool [batch, tokens].
    """
    last = model.blocks[-1]
    layer = next(
        (getattr(last, name) for name in _FEED_FORWARD if isinstance(getattr(last, name, None), nn.Module)), None
    )
    if layer is None or bool(wanted.all()):
        yield
        return
    whole = layer.forward

    def sparse(*args: Any, **kwargs: Any) -> Any:
        h = args[0] if len(args) == 1 and not kwargs else None
        # a layer that takes the residual stream too, or gives more than a state, is left as it is
        if not isinstance(h, torch.Tensor) or h.shape[:-1] != wanted.shape:
            return whole(*args, **kwargs)
        chosen = wanted.to(h.device)
        out = torch.zeros_like(h)
        if bool(wanted.any()):
            some = whole(h[chosen][:, None])
            if not isinstance(some, torch.Tensor) or some.shape[-1] != h.shape[-1]:
                return whole(h)
            out[chosen] = some[:, 0].to(out.dtype)
        return out

    with replaced_forwards({layer: sparse}):
        yield


@contextmanager
def head_for(model: Model, wanted: torch.Tensor, weight: nn.Parameter | None, start: int = 0) -> Iterator[None]:
    """The head sees only the tokens whose logits are wanted: the rest of its work would be thrown away.

    Args:
        model: the model.
        wanted: bool [batch, tokens]; logits come out as [wanted tokens, 1, vocabulary].
        weight: put in place of the head's own for the pass; None leaves it.
        start: tokens before those that `wanted` is about.
    """
    head = language_head(model)
    own = head.weight

    def gather(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (args[0][:, start:][wanted.to(args[0].device)][:, None],)

    handle = head.register_forward_pre_hook(gather)
    try:
        if weight is not None:
            head.weight = weight
        yield
    finally:
        head.weight = own
        handle.remove()


@contextmanager
def quick_attention(model: Model, precision: str) -> Iterator[None]:
    """Attention by plain products where they beat torch's fused kernel: bf16 on a CPU, short queries, long keys.

    Models of several towers keep theirs: each may have another one.
    """
    module: Any = model.module
    own = module.config._attn_implementation
    if model.device.type != "cpu" or precision == "float32" or own != "sdpa" or module.config.sub_configs:
        yield
        return
    module.set_attn_implementation("eager")
    try:
        yield
    finally:
        module.set_attn_implementation(own)


def new_cache(model: Model) -> DynamicCache:
    """An empty KV cache with the layers that the model needs."""
    return DynamicCache(config=model.module.config)


def expanded(model: Model, cache: Any, rows: int) -> Any:
    """A KV cache for `rows` rows for each one of another; None for none.

    Where that one has a single row the tensors are views of it; a block that runs replaces its own.
    """
    if cache is None:
        return None
    new = new_cache(model)
    for i, layer in enumerate(cache.layers):
        view: Any = copy(layer)
        if view.is_initialized:
            view.keys, view.values = _for_each(view.keys, rows), _for_each(view.values, rows)
        new.layers[i] = view
    return new


def cut(cache: Any, rows: range) -> Any:
    """Some rows of a KV cache, one after the other, as views; None for none."""
    if cache is None:
        return None
    new = copy(cache)
    new.layers = [copy(layer) for layer in cache.layers]
    for layer in new.layers:
        if layer.is_initialized:
            layer.keys, layer.values = (t[rows.start : rows.stop] for t in (layer.keys, layer.values))
    return new


def _for_each(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    if len(tensor) == 1:
        return tensor.expand(rows, -1, -1, -1)
    return tensor.repeat_interleave(rows, dim=0)
