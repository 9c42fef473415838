"""What a contrast set is: texts with a concept, texts like them without it, and the template both are read in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from contrans.concepts.splits import SPLITS, split_of
from contrans.concepts.template import fill
from contrans.errors import TextError
from contrans.hashing import digest, text_hash

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Example:
    """One text of a contrast set.

    Attributes:
        text: the bare text, by whose hash the split was chosen.
        prompt: the text in the set's template, and its answer if there is one, as the model reads it.
        split: "refine", "dev" or "test".
        answer: what follows the question; the prompt ends with a space and this.
    """

    text: str
    prompt: str
    split: str
    answer: str = ""

    @property
    def question(self) -> str:
        """The prompt without its answer."""
        return self.prompt[: -len(self.answer) - 1] if self.answer else self.prompt


@dataclass(frozen=True)
class ContrastSet:
    """Texts that hold a concept (positives) and texts that do not (negatives), in one template.

    Attributes:
        name: as typed, such as "emotion/anger".
        concept: the concept alone, such as "anger".
        template: where `{text}` is put; its last token is where the concept is read.
        label: the word that a model would use for the concept.
        labels: the labels of the whole family, in order; two for a pair of opposites.
        positives: examples with the concept.
        negatives: examples without it; for paired sets the i-th belongs to the i-th positive.
        paired: whether positives and negatives come in pairs.
        licence: SPDX identifier of the texts.
        author: who wrote them.
    """

    name: str
    concept: str
    template: str
    label: str
    labels: tuple[str, ...]
    positives: tuple[Example, ...]
    negatives: tuple[Example, ...]
    paired: bool
    licence: str = ""
    author: str = ""

    def split(self, name: str) -> "ContrastSet":
        """The examples of one split only.

        Raises:
            TextError: no such split, or it has no positives or no negatives.
        """
        if name not in SPLITS:
            raise TextError(f"There is no split {name!r}; the splits are {', '.join(SPLITS)}.")
        if name not in self._parts:
            part = replace(
                self,
                positives=tuple(e for e in self.positives if e.split == name),
                negatives=tuple(e for e in self.negatives if e.split == name),
            )
            self._parts[name] = _two_sided(part, f"the {name} split of {self.name}")
        return self._parts[name]

    @cached_property
    def _parts(self) -> "dict[str, ContrastSet]":
        return {}

    @property
    def texts(self) -> list[str]:
        """All bare texts, positives first."""
        return [e.text for e in (*self.positives, *self.negatives)]

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the prompts and answers of both sides, in their order and letter by letter."""
        return digest([[[e.prompt, e.answer] for e in side] for side in (self.positives, self.negatives)])

    @classmethod
    def from_pairs(
        cls,
        concept: str,
        pairs: Iterable[tuple[str, str]],
        *,
        template: str = "{text}",
        answers: Iterable[tuple[str, str]] | None = None,
    ) -> "ContrastSet":
        """A contrast set from (positive, negative) texts of your own.

        Args:
            concept: its name.
            pairs: a text with the concept and one without it, each.
            template: where `{text}` is put.
            answers: as many (positive, negative) answers, put after the prompts; with them the texts of a pair may
                be the same question.

        Raises:
            TextError: there are no pairs, a template without `{text}`, or not one pair of answers per pair of texts.
        """
        pairs = list(pairs)
        given = [("", "")] * len(pairs) if answers is None else list(answers)
        if len(given) != len(pairs):
            raise TextError(f"{len(given)} pairs of answers were given for {len(pairs)} pairs of texts; give one each.")
        return build(
            {
                "format_version": FORMAT_VERSION,
                "name": concept,
                "concept": concept,
                "kind": "pairs",
                "template": template,
                "label": concept,
                "pairs": [
                    {"positive": p, "negative": n, "positive_answer": a, "negative_answer": b}
                    for (p, n), (a, b) in zip(pairs, given, strict=True)
                ],
            },
            where=f"the pairs for {concept!r}",
        )


class _Pair(BaseModel):
    model_config = ConfigDict(extra="forbid")
    positive: str
    negative: str
    positive_answer: str = ""
    negative_answer: str = ""


class _File(BaseModel):
    """The YAML of one contrast set; which of the optional parts it needs depends on `kind`."""

    model_config = ConfigDict(extra="forbid")
    format_version: int
    name: str
    concept: str
    kind: str
    template: str
    label: str = ""
    negative_label: str = ""
    family: str = ""
    licence: str = ""
    author: str = ""
    description: str = ""
    positive: list[str] = []
    negative: list[str] = []
    pairs: list[_Pair] = []
    positive_prefixes: list[str] = []
    negative_prefixes: list[str] = []
    texts: list[str] = []


def _examples(file: _File, texts: Iterable[str]) -> tuple[Example, ...]:
    return tuple(_example(file, t) for t in texts)


def _example(file: _File, text: str, *, prefix: str = "", answer: str = "") -> Example:
    question = fill(file.template, text, prefix)
    return Example(text, f"{question} {answer}" if answer else question, split_of(text), answer)


def build(raw: dict[str, Any], *, where: str, siblings: Sequence[dict[str, Any]] = ()) -> ContrastSet:
    """A contrast set from the mapping that its YAML holds.

    Args:
        raw: the mapping.
        where: what to call it in an error.
        siblings: the mappings of its whole family, for a set whose negatives are the others' positives.

    Raises:
        TextError: the mapping is malformed, empty or one-sided.
    """
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise TextError(f"The contrast set {where} is malformed at `{key}`: {first['msg'].lower()}.") from error
    if file.format_version > FORMAT_VERSION:
        raise TextError(
            f"The contrast set {where} has format version {file.format_version}; this version of ConTrans reads up "
            f"to {FORMAT_VERSION}: upgrade contrans."
        )
    if "{text}" not in file.template:
        raise TextError(f"The template of the contrast set {where} has no {{text}}; say where the text goes.")
    label = file.label or file.concept
    labels = (label, file.negative_label) if file.negative_label else (label,)
    if file.kind == "family":
        others = [s for s in siblings if s["name"] != file.name]
        labels = tuple(sorted({label, *(str(s.get("label", s["concept"])) for s in others)}))
        positives = _examples(file, file.positive)
        negatives = tuple(e for s in others for e in _examples(file, s["positive"]))
    elif file.kind == "pairs":
        # a pair stays together: the split goes by the positive text
        positives, negatives = _examples(file, file.positive), _examples(file, file.negative)
        if file.pairs:
            positives = tuple(_example(file, p.positive, answer=p.positive_answer) for p in file.pairs)
            negatives = tuple(_example(file, p.negative, answer=p.negative_answer) for p in file.pairs)
        if len(positives) == len(negatives):
            negatives = tuple(replace(n, split=p.split) for p, n in zip(positives, negatives, strict=True))
    elif file.kind == "prefixes":
        positives, negatives = _persona(file, file.positive_prefixes), _persona(file, file.negative_prefixes)
    else:
        raise TextError(f"The contrast set {where} has kind {file.kind!r}; use family, pairs or prefixes.")
    made = ContrastSet(
        name=file.name,
        concept=file.concept,
        template=file.template,
        label=label,
        labels=labels,
        positives=positives,
        negatives=negatives,
        paired=file.kind != "family" and len(positives) == len(negatives),
        licence=file.licence,
        author=file.author,
    )
    return _distinct(_two_sided(made, where), where)


def _persona(file: _File, prefixes: Sequence[str]) -> tuple[Example, ...]:
    # the i-th question gets the i-th persona of either side, so that a pair differs in the persona alone
    return tuple(_example(file, t, prefix=prefixes[i % len(prefixes)]) for i, t in enumerate(file.texts) if prefixes)


def _two_sided(made: ContrastSet, where: str) -> ContrastSet:
    for side, examples in (("positive", made.positives), ("negative", made.negatives)):
        if not examples:
            other = "negative" if side == "positive" else "positive"
            raise TextError(
                f"The contrast set {where} has no {side} texts; a contrast needs both, not only {other} ones."
            )
    return made


def _distinct(made: ContrastSet, where: str) -> ContrastSet:
    both = {text_hash(e.prompt) for e in made.positives} & {text_hash(e.prompt) for e in made.negatives}
    if both:
        text = next(e.text for e in made.positives if text_hash(e.prompt) in both)
        raise TextError(f"The contrast set {where} has {text[:50]!r} on both sides; keep it on one.")
    return made
