"""Which tokens are an answer, and what must go through a model so that many answers are scored at the least cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contrans.errors import TextError


def answer_spans(ends: Sequence[Sequence[int]], length: int) -> list[tuple[int, int]]:
    """First token of each answer to one question, and one past its last.

    A tokenizer may merge the end of the context with the first letters of one answer and not of another. All answers
    are therefore scored from the last character before them at which every tokenisation has a boundary, so that
    their log-probabilities are about the same text. Where nothing merges, that is the end of the context.

    Args:
        ends: per answer the character end offset of each token of context and answer together; 0 for special tokens.
        length: characters of the context.

    Raises:
        TextError: an answer has no tokens of its own, or no token stands before it.
    """
    seam = max(set.intersection(*({0, *(e for e in row if e <= length)} for row in ends)))
    spans = []
    for n, row in enumerate(ends):
        # a tokenizer may put special tokens after the text, which are no part of the answer
        inside = [i for i, end in enumerate(row) if end > seam]
        if max(row, default=0) <= length:
            raise TextError(f"Answer {n} to a question has no tokens of its own; give it words.")
        if inside[0] == 0:
            raise TextError("No token stands before an answer, so nothing predicts its first; put a prompt before it.")
        spans.append((inside[0], inside[-1] + 1))
    return spans


@dataclass(frozen=True)
class ScoringPlan:
    """What has to go through a model so that every answer can be scored, each prediction once.

    Attributes:
        prefix: token ids that all rows begin with.
        suffixes: what follows it in each row that is fed; a row that another one begins with is not among them.
        positions: per suffix the tokens after which something is read, ascending.
        reads: per suffix int64 [n, 3]: index into its positions, token whose log-probability is wanted, and its number.
        parts: per answer the numbers of the log-probabilities whose sum is its score.
    """

    prefix: list[int]
    suffixes: list[tuple[int, ...]]
    positions: list[list[int]]
    reads: list[np.ndarray]
    parts: list[list[int]]

    @property
    def n_reads(self) -> int:
        """Different log-probabilities."""
        return sum(map(len, self.reads))


def plan_scoring(rows: Sequence[list[int]], starts: Sequence[int]) -> ScoringPlan:
    """Which rows to feed and what to read where.

    Answers that begin alike share predictions: of "No, it is." and "No, never." the "No" is read once.

    Args:
        rows: token ids of each answer with its context, up to its last token.
        starts: index of each answer's first token, at least 1.
    """
    low, high = min(rows), max(rows)
    common = next((k for k, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    # what predicts the first token of an answer must follow the prefix
    cut = min(common, min(starts) - 1)
    # the last token of an answer is never fed: what stands before it predicts it
    fed = sorted({tuple(row[cut:-1]) for row in rows})
    suffixes = [row for row, following in zip(fed, [*fed[1:], ()], strict=True) if following[: len(row)] != row]
    where: dict[tuple[int, ...], tuple[int, int]] = {}
    for i, suffix in enumerate(suffixes):
        for position in range(len(suffix)):
            where.setdefault(suffix[: position + 1], (i, position))
    numbers: dict[tuple[tuple[int, ...], int], int] = {}
    parts = []
    for row, start in zip(rows, starts, strict=True):
        predictions = [(tuple(row[cut:k]), row[k]) for k in range(start, len(row))]
        parts.append([numbers.setdefault(p, len(numbers)) for p in predictions])
    reads: list[list[tuple[int, int, int]]] = [[] for _ in suffixes]
    for (context, token), number in numbers.items():
        i, position = where[context]
        reads[i].append((position, token, number))
    positions = [sorted({position for position, _, _ in r}) for r in reads]
    arrays = [np.array([(p.index(at), t, n) for at, t, n in r]) for p, r in zip(positions, reads, strict=True)]
    return ScoringPlan(list(low[:cut]), suffixes, positions, arrays, parts)
