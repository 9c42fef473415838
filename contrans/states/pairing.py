"""Which token of the source stands at the same place as which token of the target."""

from collections.abc import Sequence
from dataclasses import dataclass

from contrans.models import Model
from contrans.states.encode import encode


@dataclass(frozen=True)
class PairedPositions:
    """Positions of one text that both tokenizers end a token at.

    Attributes:
        source: token positions in the source.
        target: token positions in the target, as many.
    """

    source: list[int]
    target: list[int]


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


def match_rate(source: Model, target: Model, texts: Sequence[str]) -> float:
    """Share of the source's tokens that end where a token of the target ends, over all texts.

    1 for equal tokenizers. Below .67 a map sees few of the states it is meant to carry; below .24 hardly any.
    """
    of_source, of_target = encode(source, texts), encode(target, texts)
    paired = total = 0
    for source_ends, target_ends in zip(of_source.ends, of_target.ends, strict=True):
        paired += len(pair_by_offset(source_ends, target_ends).source)
        total += len({end for i, end in enumerate(source_ends) if i > 0 and end > 0})
    return paired / total if total else 0.0
