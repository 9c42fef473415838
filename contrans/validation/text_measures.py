"""Measures of a text that need no judge: does it copy its prompt, loop, fall apart, or say nothing?"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

from contrans.errors import TextError
from contrans.validation.generation import Continuation

EMPTY, COPIED, DEGENERATE = "empty", "copied", "degenerate"


def distinct_n(token_lists: Sequence[Sequence[Hashable]], n: int) -> float:
    """Different n-grams over all n-grams of some texts together (distinct-n, Li et al. 2016); 0 if there are none."""
    grams = [tuple(tokens[i : i + n]) for tokens in token_lists for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(tokens: Sequence[Hashable], *, n: int = 4, start: int = 0) -> float:
    """Share of the n-grams that stood in the text before, of those that begin at `start` or later; 0 if there are none.

    With `start` at a window's first token, this sees loops that are longer than the window.
    """
    seen: set[tuple[Hashable, ...]] = set()
    again: list[bool] = []
    for i in range(len(tokens) - n + 1):
        gram = tuple(tokens[i : i + n])
        if i >= start:
            again.append(gram in seen)
        seen.add(gram)
    return sum(again) / len(again) if again else 0.0


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return re.findall(r"[^\W_]+", text.casefold())


def copy_rate(prompt: str, continuation: str, *, n: int = 5) -> float:
    """Share of the continuation's n-grams of words that stand in the prompt.

    A continuation of fewer than n words is one gram; one without words copies nothing.
    """
    source, written = words(prompt), words(continuation)
    n = min(n, len(written))
    if n == 0:
        return 0.0
    known = {tuple(source[i : i + n]) for i in range(len(source) - n + 1)}
    grams = [tuple(written[i : i + n]) for i in range(len(written) - n + 1)]
    return sum(g in known for g in grams) / len(grams)


def is_empty(text: str) -> bool:
    """Whether a text holds not one letter or digit."""
    return not words(text)


def empty_share(texts: Sequence[str]) -> float:
    """Share of texts that are empty.

    Raises:
        TextError: there are no texts.
    """
    if not texts:
        raise TextError("A share of no texts has no value; generate at least one.")
    return sum(map(is_empty, texts)) / len(texts)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """From where on a text counts as degenerate or copied. A higher share than any of these is too much.

    Attributes:
        repetition: share of token 4-grams that stood there before.
        dominance: share of the commonest token.
        surprise: mean −log p under the unsteered model, over ln V, that of the uniform distribution. With 50,000
            tokens, a perplexity of 20 is .28, one of 100 is .43, and the limit of .6 is one of 660.
        copied: share of 5-grams of words that stand in the prompt.
        min_tokens: a shorter text cannot be degenerate.
    """

    repetition: float = 0.5
    dominance: float = 0.5
    surprise: float = 0.6
    copied: float = 0.5
    min_tokens: int = 4


LIMITS = Limits()


def is_degenerate(
    tokens: Sequence[Hashable], *, start: int = 0, surprise: float | None = None, limits: Limits = LIMITS
) -> bool:
    """Whether a text loops, is one token over and over, or is word salad.

    Args:
        tokens: its tokens.
        start: judges only what stands from here on, though repetition looks at all that stands before.
        surprise: mean −log p of its tokens under the unsteered model over ln V, where known (`relative_surprise`).
        limits: the thresholds.
    """
    part = tokens[start:]
    if len(part) < limits.min_tokens:
        return False
    return (
        repetition(tokens, start=start) > limits.repetition
        or max(Counter(part).values()) / len(part) > limits.dominance
        or (surprise is not None and surprise > limits.surprise)
    )


def flaw_of(written: Continuation, *, surprise: float | None = None, limits: Limits = LIMITS) -> str:
    """Why a continuation says nothing about a concept: "empty", "copied", "degenerate", or "" if it is none of them.

    Args:
        written: the continuation.
        surprise: of the unsteered model at it, see `is_degenerate`.
        limits: the thresholds.
    """
    if is_empty(written.text):
        return EMPTY
    if copy_rate(written.prompt, written.text) > limits.copied:
        return COPIED
    return DEGENERATE if is_degenerate(written.ids, surprise=surprise, limits=limits) else ""


def relative_surprise(nll: torch.Tensor, vocabulary: int) -> float:
    """Mean of −log p [tokens] over ln V, the surprise of a token drawn uniformly; 0 for no tokens."""
    return float(nll.double().mean()) / math.log(vocabulary) if len(nll) else 0.0
