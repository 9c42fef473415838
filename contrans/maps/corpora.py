"""Corpora: the texts that a map is fitted on, and the templates that they are put into."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path

import yaml

from contrans.concepts.template import fill
from contrans.errors import CircularityError, TextError
from contrans.hashing import digest, text_hash
from contrans.rereading import read_once

log = logging.getLogger(__name__)

_CHANCE_WORDS = 3


@dataclass(frozen=True)
class Corpus:
    """Texts to fit a map on.

    Attributes:
        name: such as "passages".
        texts: what the models read, in order; the last token of each is a row of the fit.
        documents: which document each text was made from; held-out splits go by document.
        kinds: how each text was made: "plain", "truncated", or the name of a template.
        licence: SPDX identifier.
    """

    name: str
    texts: tuple[str, ...]
    documents: tuple[str, ...]
    kinds: tuple[str, ...]
    licence: str = ""

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the texts in their order, letter by letter."""
        return digest(self.texts)

    def only(self, kinds: Iterable[str]) -> list[int]:
        """Indices of the texts of these kinds."""
        wanted = set(kinds)
        return [i for i, kind in enumerate(self.kinds) if kind in wanted]

    def __add__(self, other: "Corpus") -> "Corpus":
        return replace(
            self,
            texts=self.texts + other.texts,
            documents=self.documents + other.documents,
            kinds=self.kinds + other.kinds,
        )

    def take(self, n: int, *, start: int = 0) -> "Corpus":
        """The texts from `start` on, n of them.

        Raises:
            TextError: there are not so many.
        """
        if start + n > len(self):
            raise TextError(
                f"The corpus {self.name} has {len(self):,} texts, not the {start + n:,} asked for; ask for fewer rows."
            )
        part = slice(start, start + n)
        return replace(self, texts=self.texts[part], documents=self.documents[part], kinds=self.kinds[part])

    def wrap(self, template: str, *, kind: str = "wrapped") -> "Corpus":
        """Each text in a concept's template, so that the map sees states at the place where the concept is read.

        Raises:
            TextError: the template has no `{text}`.
        """
        if "{text}" not in template:
            raise TextError(f"The template {template!r} has no {{text}}; say where the text goes.")
        return replace(
            self,
            texts=tuple(fill(template, t).strip() for t in self.texts),
            kinds=(kind,) * len(self),
        )

    def spread(self, templates: Mapping[str, str]) -> "Corpus":
        """Each text in one of many templates, in turn, so that a map sees where concepts of many kinds are read.

        Args:
            templates: by name, as `corpus_templates` gives them; the name becomes the text's kind.

        Raises:
            TextError: there are no templates, or one has no `{text}`.
        """
        if not templates:
            raise TextError("There are no templates to spread the texts over; leave fewer groups out.")
        names = sorted(templates)
        wrapped = {name: self.wrap(templates[name], kind=name) for name in names}
        order = [names[i % len(names)] for i in range(len(self))]
        return replace(self, texts=tuple(wrapped[name].texts[i] for i, name in enumerate(order)), kinds=tuple(order))

    def truncate(self, *, words: Sequence[int] = (2, 3, 4)) -> "Corpus":
        """Each text without its last words, two to four in turn, so that its last token is mid-sentence.

        Source: Dong et al. 2024 (arXiv 2405.13578), §4.1.
        """
        cut = tuple(_drop(t, words[i % len(words)]) for i, t in enumerate(self.texts))
        return replace(self, texts=cut, kinds=("truncated",) * len(self))


@cache
def _templates() -> dict[str, dict[str, str]]:
    path = Path(str(files("contrans.data"))) / "corpora" / "templates.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]


def corpus_templates(*, leave_out: Iterable[str] = ()) -> dict[str, str]:
    """Prompt templates about many things that end where an answer would begin, by name "group/name".

    Args:
        leave_out: groups to leave out, such as those near to a concept that a map is judged on.

    Raises:
        TextError: a group that does not exist.
    """
    groups = _templates()
    unknown = sorted(set(leave_out) - set(groups))
    if unknown:
        raise TextError(f"There is no group {unknown[0]!r} of templates; the groups are {', '.join(sorted(groups))}.")
    kept = {group: named for group, named in groups.items() if group not in set(leave_out)}
    return {f"{group}/{name}": template for group, named in kept.items() for name, template in named.items()}


def _drop(text: str, words: int) -> str:
    parts = text.split()
    return " ".join(parts[: max(1, len(parts) - words)])


def corpus(name: str | Path = "passages") -> Corpus:
    """The corpus that ships with the package, or one of your own.

    Args:
        name: "passages", or a path: .txt with one text a line, or .jsonl with a `text` in each line.

    Raises:
        TextError: no such corpus, or a malformed or empty file.
    """
    text = str(name)
    if text.endswith((".txt", ".jsonl")):
        return _read(Path(text))
    path = Path(str(files("contrans.data"))) / "corpora" / f"{text}.jsonl"
    if not path.is_file():
        raise TextError(f"No corpus is called {text!r}; use passages, or a path that ends in .txt or .jsonl.")
    return _read(path)


@read_once
def _read(path: Path) -> Corpus:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise TextError(f"The corpus {path} cannot be read ({why}); check its path and encoding.") from error
    licence = ""
    if path.suffix == ".jsonl":
        texts = []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if "text" in row:
                    texts.append(str(row["text"]))
                elif number == 1:
                    licence = str(row.get("licence", ""))
                else:
                    raise KeyError("text")
            except (ValueError, KeyError, TypeError) as error:
                raise TextError(f"Line {number} of the corpus {path} is not a JSON object with a `text`.") from error
    else:
        texts = lines
    if not texts:
        raise TextError(f"The corpus {path} is empty; a map needs texts.")
    return Corpus(path.stem, tuple(texts), tuple(text_hash(t) for t in texts), ("plain",) * len(texts), licence)


def check_circularity(texts: Sequence[str], forbidden: Iterable[str], *, what: str = "the map's corpus") -> None:
    """Refuses a corpus that holds, whole or inside a longer text, a text that the map will be judged by.

    With such texts in the fit and few rows, a min-norm map returns the target's own vector even where the target
    holds no concept at all: the evidence would be circular.

    Raises:
        CircularityError: one of the texts is found.
    """
    folded = {f" {_fold(t)} " for t in texts}
    whole = "\n".join(folded)
    for text in forbidden:
        bare = f" {_fold(text)} "
        # a few words stand in many sentences by chance; as a whole text they count all the same
        inside = bare in whole if len(bare.split()) > _CHANCE_WORDS else bare in folded
        if inside:
            raise CircularityError(
                f"{what[0].upper()}{what[1:]} contains the contrast text {text[:60]!r}; a map must not see texts it is "
                f"judged by: take it out of the corpus or out of the contrast set."
            )


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())
