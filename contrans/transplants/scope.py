"""At which positions a transplant acts, from token ids and masks alone."""

from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch
from transformers import Cache

SCOPES = ("all", "prompt", "generated", "last", "with_bos")
WITHOUT_PROMPT = ("all", "with_bos")
"""Scopes for which it does not matter where the prompt ends."""


@dataclass
class Generation:
    """What is known of the generation that a forward pass belongs to.

    Attributes:
        prompt_length: columns of the prompt, padding included; 0 before the first pass.
        seen: columns that went through the model, from the cache or without one.
        prompt: the prompt's token ids [batch, prompt_length], where they are known.
        cache: refers to the KV cache of the last pass, where there was one.
    """

    prompt_length: int = 0
    seen: int = 0
    prompt: torch.Tensor | None = None
    cache: ref[Cache] | None = None

    def advance(self, *, past: int, width: int, ids: torch.Tensor | None, cache: Any = None) -> int:
        """Notes a forward pass of `width` new columns after `past` cached ones; returns the first one's column.

        A pass without cache whose text is the same prompt and one token longer than the last one continues the
        same generation; any other pass without cache begins anew. Cached columns before a pass that is the
        first to be seen (a shared prefix, say) belong to the prompt.
        """
        total = past + width
        expected = past if past else total - 1
        continues = 0 < self.seen == expected and (past > 0 or self._same_prompt(ids))
        if not continues:
            self.prompt_length, self.prompt = total, ids
        self.seen = total
        self.cache = ref(cache) if isinstance(cache, Cache) else None
        return past

    def is_cut(self, past: int, cache: Any) -> bool:
        """Whether generated columns were taken out of the very cache that this generation goes by."""
        same = self.cache is not None and self.cache() is cache
        return same and self.prompt_length < past < self.seen

    def _same_prompt(self, ids: torch.Tensor | None) -> bool:
        if ids is None or self.prompt is None:
            return False
        start = ids[:, : self.prompt_length]
        return start.shape == self.prompt.shape and bool((start == self.prompt).all())


def spans_pass(scope: str, *, start: int, prompt_length: int) -> bool | None:
    """Whether a pass is edited at all of its real tokens or at none, so that no mask need be made.

    Args:
        scope: one of `SCOPES`.
        start: column of the pass's first token in its generation.
        prompt_length: columns of the prompt.

    Returns:
        True for all, False for none, None where it takes `position_mask` to tell.
    """
    if scope == "with_bos":
        return True
    if scope == "all":
        return True if start > 0 else None
    if start < prompt_length:
        return None
    return scope != "prompt"


def position_mask(
    scope: str,
    real: torch.Tensor,
    *,
    start: int,
    prompt_length: int,
    is_bos: torch.Tensor | None = None,
) -> torch.Tensor:
    """Which of a pass's columns are edited.

    "all" is every real token but BOS, "prompt" those that were given, "generated" those that the model wrote, and
    "last" the last token of the prompt and all generated ones. BOS is an attention sink, and what is added to it
    reaches everything else, so only "with_bos" edits it: every real token, as a bias in the weights does. Padding is
    never edited.

    Args:
        scope: one of `SCOPES`.
        real: bool [batch, width], tokens that are no padding.
        start: column of the first token in its generation.
        prompt_length: columns of the prompt.
        is_bos: bool [batch, width], tokens that are the model's BOS; unread for "with_bos".

    Returns:
        Bool [batch, width].
    """
    width = real.shape[1]
    column = torch.arange(start, start + width, device=real.device)
    if scope == "prompt":
        chosen = real & (column < prompt_length)
    elif scope == "generated":
        chosen = real & (column >= prompt_length)
    elif scope == "last":
        in_prompt = real & (column < prompt_length)
        # right padding puts the last real token of a row before the last column
        from_the_end = in_prompt.flip(1).cumsum(1).flip(1)
        ends_here = start + width >= prompt_length
        chosen = (in_prompt & (from_the_end == 1) if ends_here else torch.zeros_like(real)) | (
            real & (column >= prompt_length)
        )
    else:
        chosen = real
    return chosen & ~is_bos if is_bos is not None and scope != "with_bos" else chosen
