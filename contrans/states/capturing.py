"""Hidden states: the outputs of decoder blocks, read by forward hooks.

`hidden_states[-1]` of transformers is taken after the final norm and is no block's output, and
`output_hidden_states` does not show what a transplant does, so blocks are always read by our own hooks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from contrans.errors import BlockError, StateError, TextError
from contrans.models import Model
from contrans.states.encode import CHUNK, batches, encode, encode_ahead
from contrans.states.gathering import Gather, RowStore, token_ranges
from contrans.states.reading import Reader

Progress = Callable[[int], None]
"""Called after every batch with the number of real tokens that it held."""


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
        batch_tokens: most tokens, padding included, in one batch; on a CPU batches hold at most 512, which is faster.
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
    reader = Reader(model, wanted, precision)
    for group in batches(encoded.lengths, batch_tokens=reader.most_tokens(batch_tokens)):
        hidden: dict[int, torch.Tensor] = {}

        def keep(block: int, states: torch.Tensor, hidden: dict[int, torch.Tensor] = hidden) -> None:
            hidden[block] = states.float()

        reader.read([encoded.ids[i] for i in group], keep)
        lengths = torch.tensor([encoded.lengths[i] for i in group])
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
    compile: bool = False,
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
        batch_tokens: most tokens, padding included, in one batch; on a CPU batches hold at most 512, which is faster.
        precision: "float32" or "bfloat16", see `iter_states`.
        special_tokens: whether the tokenizer adds its BOS.
        compile: whether blocks run by `torch.compile`, in float32 only. The first batch then takes the time to compile,
            which pays for many texts on a GPU; where it fails a warning says so, and blocks run as they are.
        progress: called with the number of real tokens after every batch.

    Returns:
        Per block a float32 tensor [texts, d]; equal to one-by-one forwards up to rounding (a relative
        error below 1e-4 in float32, tested).

    Raises:
        BlockError: the model has no such block.
        TextError: a text is empty, too long, or has no token at `position` or in its span.
        StateError: a state is NaN or infinite.
        SpecError: the precision is not possible, or not in compiled blocks.
    """
    wanted = check_blocks(model, blocks)
    positions = [position] * len(texts) if isinstance(position, int) else list(position)
    if spans is None and len(positions) != len(texts):
        raise TextError(f"{len(positions)} positions were given for {len(texts)} texts; give one, or one per text.")
    if spans is not None and len(spans) != len(texts):
        raise TextError(f"{len(spans)} spans were given for {len(texts)} texts; give one per text.")
    reader = Reader(model, wanted, precision, compile=compile)
    result = CapturedStates({b: torch.empty((len(texts), model.hidden_size)) for b in wanted})
    pinned = reader.device.type == "cuda"
    store = RowStore(wanted, min(len(texts), CHUNK), model.hidden_size, pinned=pinned)
    for first, encoded in encode_ahead(model, texts, special_tokens=special_tokens):
        part = slice(first, first + len(encoded))
        ranges = token_ranges(model, encoded, positions[part], spans and spans[part], first=first)
        for group in batches(encoded.lengths, batch_tokens=reader.most_tokens(batch_tokens)):
            gather = Gather([ranges[i] for i in group])
            store.begin(group)
            reader.read([encoded.ids[i] for i in group], lambda block, hidden, g=gather: store.put(block, g(hidden)))
            n_tokens = sum(encoded.lengths[i] for i in group)
            result.n_tokens += n_tokens
            if progress is not None:
                progress(n_tokens)
        broken = store.drain(result.blocks, first=first)
        if broken:
            raise StateError(
                f"{model.name} gives states that are not finite at block {broken[0]}; float16 overflows in some "
                f"models: load it in bfloat16 or float32."
            )
    return result
