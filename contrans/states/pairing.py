"""Which token of the source stands at the same place as which token of the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from contrans.errors import ModelError
from contrans.hashing import digest
from contrans.models import Model
from contrans.states.encode import Encoded, encode

FEW, HARDLY_ANY = 0.67, 0.24
"""Match rates below which a map sees few, and hardly any, of the states that it is meant to carry."""
SINK = 10.0
"""A token whose state is more than this many medians long is an attention sink, not text."""


@dataclass(frozen=True)
class PairedPositions:
    """Positions of one text that both tokenizers end a token at.

    Attributes:
        source: token positions in the source.
        target: token positions in the target, as many.
    """

    source: list[int]
    target: list[int]

    def __len__(self) -> int:
        return len(self.source)

    def only(self, picks: Sequence[int]) -> "PairedPositions":
        """Some of the pairs, by their numbers."""
        return PairedPositions([self.source[k] for k in picks], [self.target[k] for k in picks])


@dataclass(frozen=True)
class Pairing:
    """The paired tokens of some texts.

    Attributes:
        texts: of each text.
        way: "position" if the tokens of all texts are the same in both models, so that they pair one by one;
            "offset" if those of some text are paired by the character that they end at.
        n_source: tokens of the source that could have had a partner.
    """

    texts: list[PairedPositions]
    way: str
    n_source: int

    @property
    def n(self) -> int:
        """Pairs in all texts together."""
        return sum(map(len, self.texts))

    @property
    def match_rate(self) -> float:
        """Share of the source's tokens that have a partner; 0 if there are none."""
        return self.n / self.n_source if self.n_source else 0.0


def pair_positions(source: Model, target: Model, texts: Sequence[str], *, alike: bool | None = None) -> Pairing:
    """Pairs the tokens of texts in two models.

    Where the tokenizers have equal vocabularies and make equal tokens of a text, they pair position by position, a BOS
    that only one of them adds left aside; otherwise by `pair_by_offset`. Position 0 and tokens that a tokenizer added
    (BOS, [CLS], [SEP], EOS) are left out in either model: they are attention sinks, not text.

    Args:
        source: the model that concepts come from.
        target: the model that they go to.
        texts: what both read.
        alike: whether the vocabularies are equal, as `same_vocabulary` says; asked of it if None.

    Raises:
        ModelError: the tokenizers differ, and one of them knows no character offsets.
        TextError: as `encode` raises it.
    """
    alike = same_vocabulary(source, target) if alike is None else alike
    x, y = encode(source, texts), encode(target, texts)
    pairs: list[PairedPositions] = []
    by_position = n_source = 0
    for i in range(len(texts)):
        own_x, own_y = x.content[i], y.content[i]
        if alike and x.ids[i][slice(*own_x)] == y.ids[i][slice(*own_y)]:
            pairs.append(pair_by_position(own_x, own_y))
            n_source += own_x[1] - max(own_x[0], 1)
            by_position += 1
            continue
        for model, ends in ((source, x.ends[i]), (target, y.ends[i])):
            if not ends:
                raise ModelError(
                    f"The tokenizer of {model.name} knows no character offsets, so its tokens cannot be paired with "
                    f"those of another; load the model with a fast tokenizer, or fit on last tokens only."
                )
        ends_x, ends_y = _own_ends(x, i), _own_ends(y, i)
        pairs.append(pair_by_offset(ends_x, ends_y))
        n_source += len(set(ends_x[1:]) - {0})
    return Pairing(pairs, "position" if by_position == len(texts) else "offset", n_source)


def _own_ends(encoded: Encoded, i: int) -> list[int]:
    start, stop = encoded.content[i]
    own = finished_ends(encoded.starts[i][start:stop], encoded.ends[i][start:stop])
    return [0] * start + own + [0] * (len(encoded.ids[i]) - stop)


def same_vocabulary(source: Model, target: Model) -> bool:
    """Whether each token has one and the same id in both models."""
    return source.tokenizer is target.tokenizer or source.tokenizer.get_vocab() == target.tokenizer.get_vocab()


def pair_by_position(source_content: tuple[int, int], target_content: tuple[int, int]) -> PairedPositions:
    """Pairs equally many tokens one by one, but for those at position 0 of either model.

    Args:
        source_content: range (start, stop) of the text's own tokens in the source.
        target_content: the same for the target, equally long.
    """
    shift = target_content[0] - source_content[0]
    first = max(source_content[0], 1, 1 - shift)
    source = list(range(first, source_content[1]))
    return PairedPositions(source, [i + shift for i in source])


def pair_by_offset(source_ends: Sequence[int], target_ends: Sequence[int]) -> PairedPositions:
    """Pairs tokens that end at exactly the same character.

    Position 0 and special tokens (which end at 0) are left out: they are attention sinks, not text.

    Args:
        source_ends: character end offset of each source token.
        target_ends: the same for the target.
    """
    # several tokens can end at one character (bytes of one sign): the last of them has seen all of it
    at = {end: i for i, end in enumerate(target_ends) if i > 0 and end > 0}
    last = {end: i for i, end in enumerate(source_ends) if i > 0 and end > 0}
    pairs = [(i, at[end]) for end, i in sorted(last.items()) if end in at]
    return PairedPositions([s for s, _ in pairs], [t for _, t in pairs])


def finished_ends(starts: Sequence[int], ends: Sequence[int]) -> list[int]:
    """End offsets, with 0 for tokens whose last character the next token still reads.

    Such are all but the last byte of a sign, and the `▁` that SentencePiece puts before a text, which has the offsets
    of the first character but has seen nothing of it.

    Args:
        starts: character offset at which each token begins.
        ends: character offset at which it ends; 0 for special tokens.
    """
    # a special token that follows (its end is 0) reads no character
    unfinished = [ends[i + 1] > 0 and starts[i + 1] < ends[i] for i in range(len(ends) - 1)]
    return [0 if read_on else end for end, read_on in zip(ends, [*unfinished, False], strict=False)]


def pick_evenly(n: int, most: int, start: float) -> list[int]:
    """At most so many of n places, in equal steps from one end to the other, each place equally likely to be picked.

    Source: systematic sampling (Madow & Madow 1944).

    Args:
        n: places, counted from 0.
        most: how many to pick at most.
        start: from 0 to below 1, where in the first step to begin.
    """
    if n <= most:
        return list(range(n))
    return [int((k + start) * n / most) for k in range(most)]


def start_of(document: str, seed: int) -> float:
    """A number from 0 to below 1 by a document's hash, for `pick_evenly`: the same wherever the document stands."""
    return int(digest(["pairs", seed, document])[:8], 16) / 16**8


def not_sinks(norms: torch.Tensor) -> torch.Tensor:
    """Which states are text by their norms [n]: bool [n], those of at most 10 medians."""
    return norms <= SINK * norms.median()


def match_rate(source: Model, target: Model, texts: Sequence[str]) -> float:
    """Share of the source's tokens that end where a token of the target ends, over all texts.

    1 for equal tokenizers; see `match_rate_note` for what a low one means.
    """
    return pair_positions(source, target, texts).match_rate


def match_rate_note(rate: float) -> str | None:
    """What a match rate, 0 to 1, means for a map on all tokens, and what to do about it; None if all is well."""
    if rate >= FEW:
        return None
    said = f"Only {rate:.0%} of the source's tokens end where one of the target's does, so a map fitted on all tokens"
    if rate >= HARDLY_ANY:
        return f"{said} sees few of the states it is meant to carry: give more texts, or fit it on last tokens only."
    return (
        f"{said} sees hardly any of the states it is meant to carry: fit it on last tokens only, or choose another "
        f"pair of models."
    )
