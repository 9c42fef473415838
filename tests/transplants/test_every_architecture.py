"""On every architecture a transplant moves one block's output, at the right positions, and nothing before it."""

from itertools import product
from typing import Any

import pytest
import torch

from contrans.models import Model
from contrans.transplants import Transplant
from tests.tiny import ARCHITECTURES, tiny

BLOCK = 2
TEXTS = ["the cat sat there", "one", "they think the weather"]
WHOLE, WITH_CACHE = [(0, None)], [(0, -2), (-2, -1), (-1, None)]
"""The columns of each forward pass."""


def padded(model: Model, texts: list[str], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    rows = [torch.tensor(model.tokenizer(text)["input_ids"]) for text in texts]
    pad = {"batch_first": True, "padding_side": side}
    ids = torch.nn.utils.rnn.pad_sequence(rows, padding_value=model.pad_token_id, **pad)
    return ids, torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], **pad)


def outputs(model: Model, ids: torch.Tensor, mask: torch.Tensor, passes: list) -> list[torch.Tensor]:
    """What each block puts out, [batch, tokens, d], over all passes, read by plain hooks."""
    seen: list[list[torch.Tensor]] = [[] for _ in model.blocks]

    def keep(i: int, out: Any) -> None:
        seen[i].append(out if torch.is_tensor(out) else out[0])

    handles = [
        block.register_forward_hook(lambda _m, _a, out, i=i: keep(i, out)) for i, block in enumerate(model.blocks)
    ]
    cached = {}
    with torch.inference_mode():
        for start, stop in passes:
            inputs = {"input_ids": ids[:, start:stop], "attention_mask": mask[:, :stop], **cached}
            made = model.module(**inputs, use_cache=len(passes) > 1)
            cached = {"past_key_values": made.past_key_values} if len(passes) > 1 else {}
    for handle in handles:
        handle.remove()
    return [torch.cat(parts, dim=1) for parts in seen]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_block_moves_by_the_shift_and_nothing_before_it(architecture: str) -> None:
    model = tiny(architecture)
    shift = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(3))
    for side, texts, passes in product(("left", "right"), (TEXTS, TEXTS[:1]), (WHOLE, WITH_CACHE)):
        ids, mask = padded(model, texts, side)
        before = outputs(model, ids, mask, passes)
        with Transplant(model, {BLOCK: shift}):
            after = outputs(model, ids, mask, passes)
        assert [states.shape for states in after] == [(*ids.shape, model.hidden_size)] * model.n_blocks
        for block in range(BLOCK):
            assert torch.equal(after[block], before[block])
        moved = mask.bool() & (ids != model.tokenizer.bos_token_id)
        torch.testing.assert_close(after[BLOCK] - before[BLOCK], moved[..., None] * shift, rtol=1e-3, atol=2e-5)
        assert not torch.allclose(after[-1], before[-1], atol=1e-2)
