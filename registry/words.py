"""The words by which free text finds a version."""

import re
from collections.abc import Mapping
from typing import Any

MAX_WORD = 64  # characters
MAX_WORDS = 256

_WORD = re.compile(r"[^\W_]+")
_HASH = re.compile(r"[0-9a-f]{32,}")


def words_of(name: str, manifest: Mapping[str, Any]) -> list[str]:
    """The words of a version's name and of the texts in its manifest, each once.

    Hashes, and words of more than 64 characters, are no words; a version has at most 256.
    """
    texts, waiting = [name], [manifest]
    while waiting:
        value: Any = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return [word for word in split_words(" ".join(texts)) if not _HASH.fullmatch(word)][:MAX_WORDS]


def split_words(text: str) -> list[str]:
    """The words of a text, each once, blind to case; what is no letter or digit parts them."""
    return [word for word in dict.fromkeys(_WORD.findall(text.casefold())) if len(word) <= MAX_WORD]
