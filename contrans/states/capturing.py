"""Hidden states: the outputs of decoder blocks, read by forward hooks.

`hidden_states[-1]` of transformers is taken after the final norm and is no block's output, and
`output_hidden_states` does not show what a transplant does, so blocks are always read by our own hooks.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import torch
from torch import nn

from contrans.errors import BlockError, StateError, TextError
from contrans.models import Model
from contrans.states.encode import Encoded, batches, encode, pad_right
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
    """One state per text and block: that of one token, or the mean over several.

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
    wanted, deepest = set(blocks), max(blocks)
    # most models have a module for each block; ALBERT runs one module as many blocks, one after the other
    runs_as: dict[nn.Module, list[int]] = {}
    for number, module in enumerate(model.blocks):
        runs_as.setdefault(module, []).append(number)

    def read(numbers: list[int]):
        turns = iter(numbers)

        def hook(_module, _args, output):
            block = next(turns, None)
            if block not in wanted:
                return
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

    handles = [m.register_forward_hook(read(ns)) for m, ns in runs_as.items() if not wanted.isdisjoint(ns)]
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
    yield from _run(model, encoded, wanted, batch_tokens=batch_tokens, precision=precision, progress=progress)


def _run(
    model: Model,
    encoded: Encoded,
    wanted: Sequence[int],
    *,
    batch_tokens: int,
    precision: str,
    progress: Progress | None,
) -> Iterator[StateBatch]:
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
    spans: Sequence[tuple[int, int]] | None = None,
    batch_tokens: int = 2048,
    precision: str = "float32",
    special_tokens: bool = True,
    progress: Progress | None = None,
) -> CapturedStates:
    """The state of each text at one token, or its mean over a run of tokens, for every block asked for.

    Args:
        model: the model to read.
        texts: what it reads.
        blocks: block numbers; all of them if None.
        position: the token to read: 0 is the first (BOS where there is one), −1 the last of the text itself, before
            any special token that the tokenizer puts after it ([SEP], EOS); or one such number per text.
        spans: instead of `position`, per text a range (start, stop) of tokens, counted from its first; the
            states of these tokens are averaged.
        batch_tokens: most tokens, padding included, in one batch.
        precision: "float32" or "bfloat16", see `iter_states`.
        special_tokens: whether the tokenizer adds its BOS.
        progress: called with the number of real tokens after every batch.

    Returns:
        Per block a float32 tensor [texts, d]; equal to one-by-one forwards up to rounding (a relative
        error below 1e-4 in float32, tested).

    Raises:
        BlockError: the model has no such block.
        TextError: a text is empty, too long, or has no token at `position` or in its span.
        StateError: a state is NaN or infinite.
    """
    wanted = check_blocks(model, blocks)
    encoded = encode(model, texts, special_tokens=special_tokens)
    ranges = _at_positions(model, encoded, position) if spans is None else _checked_spans(model, encoded, spans)
    result = CapturedStates({b: torch.empty((len(texts), model.hidden_size)) for b in wanted})
    for batch in _run(model, encoded, wanted, batch_tokens=batch_tokens, precision=precision, progress=progress):
        for block, hidden in batch.hidden.items():
            rows = _mean_over(hidden, [ranges[i] for i in batch.indices]).cpu()
            if not bool(torch.isfinite(rows).all()):
                raise StateError(
                    f"{model.name} gives states that are not finite at block {block}; float16 overflows in some "
                    f"models: load it in bfloat16 or float32."
                )
            result.blocks[block][batch.indices] = rows
        result.n_tokens += int(batch.lengths.sum())
    return result


def _at_positions(model: Model, encoded: Encoded, position: int | Sequence[int]) -> list[tuple[int, int]]:
    positions = [position] * len(encoded) if isinstance(position, int) else list(position)
    if len(positions) != len(encoded):
        raise TextError(f"{len(positions)} positions were given for {len(encoded)} texts; give one, or one per text.")
    ranges = []
    for i, (at, row, content) in enumerate(zip(positions, encoded.ids, encoded.content, strict=True)):
        found = at if at >= 0 else content[1] + at
        if not 0 <= found < len(row):
            raise TextError(f"Text {i} has {len(row)} tokens in {model.name}, so none at position {at}.")
        ranges.append((found, found + 1))
    return ranges


def _checked_spans(model: Model, encoded: Encoded, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    if len(spans) != len(encoded):
        raise TextError(f"{len(spans)} spans were given for {len(encoded)} texts; give one per text.")
    for i, ((start, stop), row) in enumerate(zip(spans, encoded.ids, strict=True)):
        if not 0 <= start < stop <= len(row):
            raise TextError(f"Text {i} has {len(row)} tokens in {model.name}, so no span from {start} to {stop}.")
    return list(spans)


def _mean_over(hidden: torch.Tensor, ranges: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Of each row of hidden [batch, width, d] the mean over its range of tokens: [batch, d]."""
    if all(stop - start == 1 for start, stop in ranges):
        at = torch.tensor([start for start, _ in ranges], device=hidden.device)
        return hidden[torch.arange(len(at), device=hidden.device), at]
    return torch.stack([hidden[row, start:stop].mean(0) for row, (start, stop) in enumerate(ranges)])
