"""What a steered model gives, the slow and plain way: a full pass over one unpadded text, edited in NumPy."""

import numpy as np
import torch

from contrans.models import Model
from tests.transplants.test_operations import numpy_edit

BLOCK = 2


def edited_columns(scope: str, ids: list[int], prompt: int, bos: int | None) -> np.ndarray:
    """Bool [columns]: where the scope acts on a text whose first `prompt` tokens were given."""
    column = np.arange(len(ids))
    chosen = {
        "all": column >= 0,
        "prompt": column < prompt,
        "generated": column >= prompt,
        "last": column >= prompt - 1,
        "with_bos": column >= 0,
    }[scope]
    return chosen if scope == "with_bos" else chosen & ~((column == 0) & (np.array(ids) == bos))


def steered_logits(
    model: Model, ids: list[int], chosen: np.ndarray, operation: str, shift: torch.Tensor
) -> torch.Tensor:
    """Logits [columns, vocabulary] with the block's output edited at the chosen columns."""

    def hook(_module, _args, output):
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        rows = hidden[0].numpy().copy()
        rows[chosen] = numpy_edit(operation, rows[chosen], shift.numpy())
        new = torch.from_numpy(rows)[None]
        return new if isinstance(output, torch.Tensor) else (new, *output[1:])

    handle = model.blocks[BLOCK].register_forward_hook(hook)
    try:
        with torch.inference_mode():
            return model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        handle.remove()


def left_padded(model: Model, texts: list[str]) -> tuple[list[list[int]], dict[str, torch.Tensor]]:
    """Token ids of each text, and the batch of them."""
    rows = [model.tokenizer(t)["input_ids"] for t in texts]
    width = max(map(len, rows))
    return rows, {
        "input_ids": torch.tensor([[model.pad_token_id] * (width - len(r)) + r for r in rows]),
        "attention_mask": torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows]),
    }
