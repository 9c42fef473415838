"""How does a model read a text that was written before?"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import DynamicCache

from contrans.errors import StateError, TextError
from contrans.models import Model
from contrans.states.capturing import check_blocks

MAX_LOGITS = 2**25
"""Logits held at once when a text is read back: 128 MiB in float32; a long text over a large vocabulary is 1 GiB."""


def vocabulary_size(model: Model) -> int:
    """Tokens that a model chooses from."""
    return int(model.module.config.get_text_config(decoder=True).vocab_size)


def read_back(
    model: Model, prompt: Sequence[int], ids: Sequence[int], *, block: int | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """How the model, as it is now, reads a text: its surprise at every token, and the states of a block.

    Long texts go through the model in parts, with a KV cache, so that the logits of all tokens never stand in
    memory together.

    Args:
        model: the model that reads, unsteered unless a transplant is entered.
        prompt: token ids before the text, at least one.
        ids: token ids of the text.
        block: whose output is wanted at the text's tokens.

    Returns:
        −log p of each token given all before it, float32 [tokens] in nats, and float32 [tokens, d] if a block is named.

    Raises:
        TextError: the prompt is empty, or both together exceed the context.
        BlockError: the model has no such block.
        StateError: what the model gives is not finite.
    """
    whole = [*prompt, *ids]
    if not prompt:
        raise TextError("A text is read after a prompt; give at least one token, such as BOS.")
    if model.context_length is not None and len(whole) > model.context_length:
        raise TextError(f"A text of {len(whole):,} tokens exceeds the {model.context_length:,} of {model.name}.")
    surprise: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    hook = nullcontext()
    if block is not None:
        check_blocks(model, [block])
        hook = model.blocks[block].register_forward_hook(
            lambda _m, _a, out: states.append((out if isinstance(out, torch.Tensor) else out[0])[0].float().cpu())
        )
    part = max(1, MAX_LOGITS // vocabulary_size(model))
    inputs: dict[str, Any] = dict(model.no_cache)
    if len(whole) > part:
        inputs = {"past_key_values": DynamicCache(config=model.module.config), "use_cache": True}
    tokens = torch.tensor([whole], device=model.device)
    with hook, torch.inference_mode():
        for start in range(0, len(whole), part):
            end = min(start + part, len(whole))
            mask = torch.ones_like(tokens[:, :end])
            logits = model.module(input_ids=tokens[:, start:end], attention_mask=mask, **inputs).logits[0].float()
            following = tokens[0, start + 1 : end + 1]
            surprise.append(cross_entropy(logits[: len(following)], following, reduction="none").cpu())
    # the token at place k is foretold by the one before it
    nll = torch.cat(surprise)[len(prompt) - 1 :]
    hidden = torch.cat(states)[len(prompt) :] if block is not None else None
    if not all(bool(torch.isfinite(found).all()) for found in (nll, hidden) if found is not None):
        raise StateError(
            f"{model.name} gives values that are not finite; float16 overflows in some models: load it in bfloat16 or "
            f"float32."
        )
    return nll, hidden
