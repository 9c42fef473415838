"""Texts to token ids, and token ids to padded batches of about equal length."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import torch

from contrans.errors import ModelError, TextError
from contrans.models import Model

CHUNK = 4096
"""Texts that are tokenised, and sorted by length, at once."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of many texts, unpadded.

    Attributes:
        ids: one list of token ids per text, special tokens (BOS) included.
        starts: for every token the character offset at which it begins in its text; 0 for special tokens.
        ends: for every token the character offset at which it ends in its text; 0 for special tokens.
        content: of each text the range (start, stop) of its own tokens, without the special tokens that the
            tokenizer put before (BOS, [CLS]) and after them (EOS, [SEP]).

    A tokenizer that knows no offsets leaves `starts` and `ends` of every text empty.
    """

    ids: list[list[int]]
    starts: list[list[int]]
    ends: list[list[int]]
    content: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(row) for row in self.ids]

    @property
    def n_tokens(self) -> int:
        """Tokens in all texts together."""
        return sum(self.lengths)


def encode(model: Model, texts: Sequence[str], *, special_tokens: bool = True) -> Encoded:
    """Tokenises texts as the model was trained to see them.

    Args:
        model: whose tokenizer to use.
        texts: the texts; the text of a chat template already holds its BOS, so pass `special_tokens=False` for it.
        special_tokens: whether the tokenizer adds its BOS.

    Raises:
        TextError: a text is empty, or longer than the model's context.
        ModelError: the tokenizer does not tell which tokens it added.
    """
    _check_words(texts)
    return _encoded(model, texts, special_tokens=special_tokens, offsets=True) if texts else Encoded([], [], [], [])


def encode_ahead(
    model: Model, texts: Sequence[str], *, special_tokens: bool = True, chunk: int = CHUNK
) -> Iterator[tuple[int, Encoded]]:
    """Tokenises a chunk of texts in the background while the caller computes on the one before.

    Args:
        model: whose tokenizer to use.
        texts: the texts.
        special_tokens: whether the tokenizer adds its BOS.
        chunk: texts at once; what is held of tokens is those of two chunks.

    Yields:
        The number of the chunk's first text, and its tokens, without character offsets.

    Raises:
        TextError: as `encode` raises it: at once for a text that is empty, else when its chunk is reached.
        ModelError: the tokenizer does not tell which tokens it added.
    """
    _check_words(texts)
    starts = range(0, len(texts), chunk)

    def part(start: int) -> tuple[int, Encoded]:
        rows = texts[start : start + chunk]
        return start, _encoded(model, rows, special_tokens=special_tokens, offsets=False, first=start)

    if len(starts) < 2:
        # there is nothing to compute beside
        yield from map(part, starts)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="tokenise") as pool:
        ahead = pool.submit(part, 0)
        for start in starts[1:]:
            ready = ahead.result()
            ahead = pool.submit(part, start)
            yield ready
        yield ahead.result()


def _check_words(texts: Sequence[str]) -> None:
    for i, text in enumerate(texts):
        if not text.strip():
            raise TextError(f"Text {i} of {len(texts)} is empty; remove it or give it words.")


def _encoded(model: Model, texts: Sequence[str], *, special_tokens: bool, offsets: bool, first: int = 0) -> Encoded:
    fast = offsets and bool(getattr(model.tokenizer, "is_fast", False))
    out = model.tokenizer(
        list(texts),
        add_special_tokens=special_tokens,
        return_offsets_mapping=fast,
        return_special_tokens_mask=True,
        verbose=False,
    )
    ids: list[list[int]] = out["input_ids"]
    found: list[list[tuple[int, int]]] = out["offset_mapping"] if fast else [[] for _ in ids]
    content = [content_range(row) for row in out["special_tokens_mask"]]
    for i, row in enumerate(ids):
        said = f"Text {first + i} ({texts[i][:40]!r}"
        if len(out["special_tokens_mask"][i]) != len(row):
            raise ModelError(
                f"The tokenizer of {model.name} does not tell its special tokens, so the last token of a text "
                f"cannot be found; load the model with a fast tokenizer."
            )
        if content[i][0] == content[i][1]:
            raise TextError(f"{said}) has no tokens in {model.name}; remove it.")
        if model.context_length is not None and len(row) > model.context_length:
            raise TextError(
                f"{said}…) has {len(row):,} tokens, but {model.name} reads at most "
                f"{model.context_length:,}; shorten it."
            )
    starts, ends = ([[pair[side] for pair in row] for row in found] for side in (0, 1))
    return Encoded(ids, starts, ends, content)


def content_range(special: Sequence[int]) -> tuple[int, int]:
    """The range (start, stop) between leading and trailing special tokens; (0, 0) if there is nothing else.

    Args:
        special: for every token 1 if the tokenizer added it, 0 if it stands for a part of the text.
    """
    own = [i for i, added in enumerate(special) if not added]
    return (own[0], own[-1] + 1) if own else (0, 0)


def batches(lengths: Sequence[int], *, batch_tokens: int) -> list[list[int]]:
    """Groups texts of about equal length so that no padded batch exceeds a token budget.

    Args:
        lengths: tokens of each text.
        batch_tokens: most tokens, padding included, in one batch; a longer text is a batch of its own.

    Returns:
        Lists of text indices, longest texts first, so that memory peaks at the start and not at the end.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    groups: list[list[int]] = []
    for i in order:
        # the first text of a group is its longest, so it alone decides the padded width
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= batch_tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def pad_right(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pads rows on the right: left padding would shift learned positions in a plain forward.

    Returns:
        `input_ids` and `attention_mask`, both int64 [batch, longest].
    """
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask
