"""Prompts that are scored many times, cut into padded batches once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from contrans.errors import TextError
from contrans.models import Model
from contrans.states.encode import batches, pad_right


@dataclass
class PromptBatch:
    """One batch of suffixes, padded on the right.

    Attributes:
        indices: which prompts these are.
        ids: int64 [batch, tokens].
        mask: int64 [batch, tokens], 1 for a prompt's own tokens.
        wanted: bool [batch, tokens], after which tokens logits are wanted.
        state: what left the block when the unsteered model ran [batch, tokens, d]; None before it did.
    """

    indices: list[int]
    ids: torch.Tensor
    mask: torch.Tensor
    wanted: torch.Tensor
    state: torch.Tensor | None = None

    def rows(self, chosen: Sequence[int]) -> "PromptBatch":
        """Some of its rows."""
        at = list(chosen)
        state = None if self.state is None else self.state[at]
        return PromptBatch([self.indices[r] for r in at], self.ids[at], self.mask[at], self.wanted[at], state)


def prompt_batches(
    model: Model,
    suffixes: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    *,
    prefix_length: int,
    batch_tokens: int,
) -> list[PromptBatch]:
    """Batches of prompts of about equal length.

    Args:
        model: who will read them.
        suffixes: token ids of each prompt after the prefix that all share.
        positions: of each suffix the tokens, ascending, after which logits are wanted.
        prefix_length: tokens of the prefix.
        batch_tokens: most suffix tokens, padding included, in one batch.

    Raises:
        TextError: a prompt is empty or longer than the context.
    """
    longest = max((len(s) for s in suffixes), default=0) + prefix_length
    if not suffixes or min(map(len, suffixes)) == 0:
        raise TextError("There is nothing to score: every prompt needs at least one token after the prefix.")
    if model.context_length is not None and longest > model.context_length:
        raise TextError(f"A prompt has {longest:,} tokens, but {model.name} reads at most {model.context_length:,}.")
    out = []
    for group in batches([len(s) for s in suffixes], batch_tokens=batch_tokens):
        ids, mask = pad_right([suffixes[i] for i in group], model.pad_token_id)
        wanted = torch.zeros_like(mask, dtype=torch.bool)
        for row, i in enumerate(group):
            wanted[row, list(positions[i])] = True
        out.append(PromptBatch(group, ids, mask, wanted))
    return out
