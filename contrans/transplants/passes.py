"""What goes through a decoder in one forward pass, read from the arguments of the call."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from contrans.errors import StateError


@dataclass(frozen=True)
class Pass:
    """The new columns of one forward pass.

    Attributes:
        ids: token ids [batch, width], or None if embeddings were passed.
        embeds: embeddings [batch, width, d], or None.
        cache: the KV cache, or None.
        past: columns that the cache holds already.
        mask: the attention mask in any of the forms that `real_tokens` reads, or None where nothing is padding.
    """

    ids: torch.Tensor | None
    embeds: torch.Tensor | None
    cache: Any
    past: int
    mask: Any

    @property
    def tokens(self) -> torch.Tensor:
        """What was passed, ids [batch, width] or embeddings [batch, width, d]."""
        tokens = self.ids if self.ids is not None else self.embeds
        assert tokens is not None
        return tokens

    @property
    def shape(self) -> torch.Size:
        """(batch, width): rows and new columns."""
        return self.tokens.shape[:2]

    @cached_property
    def real(self) -> torch.Tensor:
        """Tokens that are no padding: bool [batch, width]."""
        rows, width = self.shape
        return real_tokens(self.mask, rows, width, self.past, self.tokens.device)


def named(args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a forward pass by name; every decoder and head takes input_ids first and all else by name."""
    return {**({"input_ids": args[0]} if args else {}), **kwargs}


def read_pass(model_name: str, arguments: Mapping[str, Any]) -> Pass:
    """Reads a pass from its named arguments.

    Raises:
        StateError: there are neither ids nor embeddings.
    """
    ids, embeds, cache = (arguments.get(name) for name in ("input_ids", "inputs_embeds", "past_key_values"))
    if ids is None and embeds is None:
        raise StateError(f"{model_name} was called with neither input_ids nor inputs_embeds; pass one of them.")
    embeds = embeds if ids is None else None
    return Pass(ids, embeds, cache, cached_columns(cache), arguments.get("attention_mask"))


def cached_columns(cache: Any) -> int:
    """How many columns a KV cache holds."""
    if cache is None:
        return 0
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else int(cache[0][0].shape[-2])


def real_tokens(mask: Any, rows: int, width: int, past: int, device: torch.device) -> torch.Tensor:
    """Which of a pass's columns are no padding: bool [rows, width].

    Args:
        mask: an attention mask [rows, columns] or [rows or 1, 1, width, columns], boolean or 0 where attended; a dict
            of such masks per kind of attention; or None.
        rows: batch size.
        width: new columns.
        past: cached columns before them.
        device: of the result.
    """
    if isinstance(mask, dict):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if mask is None:
        return torch.ones((rows, width), dtype=torch.bool, device=device)
    if mask.ndim == 4:
        seen = mask[:, 0] if mask.dtype == torch.bool else mask[:, 0] == 0
        # of all queries of the pass: a sliding window hides early keys from the last one
        mask = seen.any(dim=1)
    # a static cache has a mask over all of its room, a sliding one over less than has been read
    columns = mask[:, past : past + width] if mask.shape[1] >= past + width else mask[:, -width:]
    return columns.bool().expand(rows, width).to(device)


def leading(is_bos: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Of the tokens that are BOS, the one that begins the row after its padding: bool [batch, width]."""
    first = real & (real.cumsum(1) == 1)
    return is_bos & first
