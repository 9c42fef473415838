"""At which tokens of a text a concept is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from contrans.concepts.encoders import ENCODERS
from contrans.errors import SpecError, TextError

if TYPE_CHECKING:
    from contrans.states.encode import Encoded

FORMS = '"last", "last:K" (the final K tokens), "mean" (all of them), "answer" or "span:WORDS"'


@dataclass(frozen=True)
class TokenPosition:
    """Which tokens of a text are read; where they are several, their states are averaged.

    Attributes:
        kind: "last", the final tokens of the text itself, special tokens after it left out; "mean", all tokens of the
            text; "answer", those of the answer that it ends with; "span", those of the last place where some words
            stand.
        count: for "last", how many tokens.
        words: for "span", the words.
    """

    kind: Literal["last", "mean", "answer", "span"] = "last"
    count: int = 1
    words: str = ""

    @classmethod
    def parse(cls, text: str) -> TokenPosition:
        """A position as it is typed: "last", "last:K", "mean", "answer" or "span:WORDS".

        Raises:
            SpecError: it is none of these, or K is no number above 0, or there are no words.
        """
        kind, colon, rest = text.partition(":")
        if text == "last" or text == "mean" or text == "answer":
            return cls(text)
        if kind == "last" and rest.isdecimal() and int(rest) > 0:
            return cls("last", count=int(rest))
        if kind == "span" and colon and rest.strip():
            return cls("span", words=rest)
        raise SpecError(f"The token position {text!r} is not known; use {FORMS}.")


def usual_position(family: str) -> str:
    """The position that a model is read at where none is named: "mean" of an encoder, "last" of any other.

    Args:
        family: the configuration's `model_type`.
    """
    return "mean" if family in ENCODERS else "last"


def overlapping(starts: Sequence[int], ends: Sequence[int], begin: int, stop: int) -> tuple[int, int] | None:
    """The range (first, last + 1) of tokens that share a character with text[begin:stop]; none if no token does.

    Args:
        starts: character offset at which each token begins; special tokens begin and end at 0.
        ends: the same for its end.
        begin: first character.
        stop: the one after the last.
    """
    found = [i for i, (a, b) in enumerate(zip(starts, ends, strict=True)) if max(a, begin) < min(b, stop)]
    return (found[0], found[-1] + 1) if found else None


def token_spans(
    position: TokenPosition, encoded: Encoded, texts: Sequence[str], answers: Sequence[str]
) -> list[tuple[int, int]]:
    """For every text the range (start, stop) of tokens that a position stands for.

    Args:
        position: which tokens.
        encoded: the texts' tokens.
        texts: what the model reads.
        answers: the answer that each text ends with; "" where it has none.

    Raises:
        TextError: a text is shorter than the tokens asked for, lacks the words or an answer, or its tokenizer does
            not tell which characters a token stands for.
    """
    spans = []
    for i, (text, answer, (first, last)) in enumerate(zip(texts, answers, encoded.content, strict=True)):
        if position.kind == "last":
            if last - first < position.count:
                raise TextError(f"Text {i} ({text[:40]!r}…) has {last - first} tokens, not the last {position.count}.")
            spans.append((last - position.count, last))
            continue
        if position.kind == "mean":
            spans.append((first, last))
            continue
        if not encoded.ends[i]:
            raise TextError(
                "This model's tokenizer does not tell which characters a token stands for; read at position "
                '"last", "last:K" or "mean".'
            )
        begin, stop = _characters(position, i, text, answer)
        found = overlapping(encoded.starts[i], encoded.ends[i], begin, stop)
        if found is None:
            raise TextError(f"No token of text {i} ({text[:40]!r}…) stands for {text[begin:stop]!r}; use other words.")
        spans.append(found)
    return spans


def _characters(position: TokenPosition, index: int, text: str, answer: str) -> tuple[int, int]:
    if position.kind == "answer":
        if not answer:
            raise TextError(f'Text {index} ({text[:40]!r}…) has no answer to read; give answers, or use "last".')
        return len(text) - len(answer), len(text)
    begin = text.rfind(position.words)
    if begin < 0:
        raise TextError(f"The words {position.words!r} do not stand in text {index} ({text[:40]!r}…).")
    return begin, begin + len(position.words)
