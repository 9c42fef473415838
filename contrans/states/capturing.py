"""Hidden states: the outputs of decoder blocks, read by forward hooks.

`hidden_states[-1]` of transformers is taken after the final norm and is no block's output, and
`output_hidden_states` does not show what a transplant does, so blocks are always read by our own hooks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch

from contrans.errors import BlockError, StateError, TextError
from contrans.models import Model
from contrans.states.encode import batches, encode, pad_right
from contrans.states.precision import autocast

Progress = Callable[[int], None]
"""Called after every batch with the number of real tokens that it held."""


class _DeepestBlockDone(Exception):
    """Ends a forward pass once the deepest wanted block has run."""


@dataclass(frozen=True)
class StateBatch:
    """Block outputs of one padded batch.

    Attributes:
        indices: which texts these are.
        lengths: int64 [batch], real tokens of each (they come first: padding is on the right).
        ends: character end offsets of each text's tokens.
        hidden: per block a float32 tensor [batch, width, d]; rows past a text's length are padding.
    """

    indices: list[int]
    lengths: torch.Tensor
    ends: list[list[int]]
    hidden: dict[int, torch.Tensor]


@dataclass
class CapturedStates:
    """One state per text and block.

    Attributes:
        blocks: per block a float32 tensor [texts, d] on the CPU, in the order of the texts.
        n_tokens: real tokens that went through the model.
    """

    blocks: dict[int, torch.Tensor] = field(default_factory=dict)
    n_tokens: int = 0

    def __getitem__(self, block: int) -> torch.Tensor:
        if block not in self.blocks:
            raise BlockError(f"Block {block} was not captured; captured are {sorted(self.blocks)}.")
        return self.blocks[block]


def check_blocks(model: Model, blocks: Sequence[int] | None) -> list[int]:
    """Sorted block numbers, all of the model's if None; a block that does not exist is an error."""
    if blocks is None:
        return list(range(model.n_blocks))
    for block in blocks:
        if not 0 <= block < model.n_blocks:
            raise BlockError(
                f"{model.name} has no block {block}: it has {model.n_blocks}, numbered 0 to {model.n_blocks - 1}."
            )
    return sorted(set(blocks))


@contextmanager
def _reading(model: Model, blocks: Sequence[int], keep: dict[int, torch.Tensor]) -> Iterator[None]:
    deepest = max(blocks)

    def read(block: int):
        def hook(_module, _args, output):
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            if hidden.ndim != 3 or hidden.shape[-1] != model.hidden_size:
                raise StateError(
                    f"Block {block} of {model.name} gives a tensor of shape {tuple(hidden.shape)}, not [batch, tokens, "
                    f"{model.hidden_size}]; its residual stream cannot be read."
                )
            keep[block] = hidden.float()
            if block == deepest:
                raise _DeepestBlockDone

        return hook

    handles = [model.blocks[b].register_forward_hook(read(b)) for b in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def iter_states(
    model: Model,
    texts: Sequence[str],
    *,
    blocks: Sequence[int] | None = None,
    batch_tokens: int = 2048,
    precision: str = "float32",
    special_tokens: bool = True,
    progress: Progress | None = None,
) -> Iterator[StateBatch]:
    """Runs texts through a model, batch by batch, and yields the outputs of the blocks asked for.

    Texts are sorted by length and padded on the right; nothing above the deepest block asked for is
    computed, nor the language-model head. Memory does not grow with the number of texts.

    Args:
        model: the model to read.
        texts: what it reads.
        blocks: block numbers, 0-based; all of them if None.
        batch_tokens: most tokens, padding included, in one batch.
        precision: "float32", or "bfloat16" for bf16 matrix products around a float32 residual stream.
        special_tokens: whether the tokenizer adds its BOS.
        progress: called with the number of real tokens after every batch.

    Raises:
        BlockError: the model has no such block.
        TextError: a text is empty or longer than the context.
        StateError: a state is NaN or infinite.
    """
    wanted = check_blocks(model, blocks)
    encoded = encode(model, texts, special_tokens=special_tokens)
    for group in batches([len(row) for row in encoded.ids], batch_tokens=batch_tokens):
        rows = [encoded.ids[i] for i in group]
        ids, mask = pad_right(rows, model.pad_token_id)
        hidden: dict[int, torch.Tensor] = {}
        with (
            torch.inference_mode(),
            autocast(model.device, precision),
            _reading(model, wanted, hidden),
            suppress(_DeepestBlockDone),
        ):
            model.module(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), **model.no_cache)
        missing = [b for b in wanted if b not in hidden]
        if missing:
            raise StateError(
                f"Block {missing[0]} of {model.name} did not run in a forward pass; the model skips blocks "
                f"and cannot be read."
            )
        lengths = mask.sum(1)
        yield StateBatch(group, lengths, [encoded.ends[i] for i in group], hidden)
        if progress is not None:
            progress(int(lengths.sum()))


def capture(
    model: Model,
    texts: Sequence[str],
    *,
    blocks: Sequence[int] | None = None,
    position: int | Sequence[int] = -1,
    batch_tokens: int = 2048,
    precision: str = "float32",
    special_tokens: bool = True,
    progress: Progress | None = None,
) -> CapturedStates:
    """The state of each text at one token, for every block asked for.

    Args:
        model: the model to read.
        texts: what it reads.
        blocks: block numbers; all of them if None.
        position: the token to read, counted among real tokens: −1 is the last one, 0 the first (BOS where
            there is one); or one such number per text.
        batch_tokens: most tokens, padding included, in one batch.
        precision: "float32" or "bfloat16", see `iter_states`.
        special_tokens: whether the tokenizer adds its BOS.
        progress: called with the number of real tokens after every batch.

    Returns:
        Per block a float32 tensor [texts, d]; equal to one-by-one forwards up to rounding (a relative
        error below 1e-4 in float32, tested).

    Raises:
        BlockError: the model has no such block.
        TextError: a text is empty, too long, or has no token at `position`.
        StateError: a state is NaN or infinite.
    """
    wanted = check_blocks(model, blocks)
    positions = [position] * len(texts) if isinstance(position, int) else list(position)
    if len(positions) != len(texts):
        raise TextError(f"{len(positions)} positions were given for {len(texts)} texts; give one, or one per text.")
    result = CapturedStates({b: torch.empty((len(texts), model.hidden_size)) for b in wanted})
    for batch in iter_states(
        model,
        texts,
        blocks=wanted,
        batch_tokens=batch_tokens,
        precision=precision,
        special_tokens=special_tokens,
        progress=progress,
    ):
        at = torch.tensor([positions[i] for i in batch.indices])
        at = torch.where(at < 0, batch.lengths + at, at)
        if bool(((at < 0) | (at >= batch.lengths)).any()):
            bad = int(((at < 0) | (at >= batch.lengths)).nonzero()[0])
            raise TextError(
                f"Text {batch.indices[bad]} has {int(batch.lengths[bad])} tokens in {model.name}, so none at "
                f"position {positions[batch.indices[bad]]}."
            )
        for block, hidden in batch.hidden.items():
            rows = hidden[torch.arange(len(at), device=hidden.device), at.to(hidden.device)].cpu()
            if not bool(torch.isfinite(rows).all()):
                raise StateError(
                    f"{model.name} gives states that are not finite at block {block}; float16 overflows in some "
                    f"models: load it in bfloat16 or float32."
                )
            result.blocks[block][batch.indices] = rows
        result.n_tokens += int(batch.lengths.sum())
    return result
