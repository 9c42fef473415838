"""Contrast sets: texts with a concept, and texts like them without it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from contrans.concepts.splits import SPLITS, split_of
from contrans.concepts.template import fill
from contrans.errors import TextError
from contrans.hashing import text_hash, text_set_hash

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Example:
    """One text of a contrast set.

    Attributes:
        text: the bare text, by whose hash the split was chosen.
        prompt: the text in the set's template, as the model reads it.
        split: "refine", "dev" or "test".
    """

    text: str
    prompt: str
    split: str


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
        part = replace(
            self,
            positives=tuple(e for e in self.positives if e.split == name),
            negatives=tuple(e for e in self.negatives if e.split == name),
        )
        return _two_sided(part, f"the {name} split of {self.name}")

    @property
    def texts(self) -> list[str]:
        """All bare texts, positives first."""
        return [e.text for e in (*self.positives, *self.negatives)]

    @property
    def hash(self) -> str:
        """SHA-256 over the prompts of both sides; independent of order."""
        return text_set_hash([f"+{e.prompt}" for e in self.positives] + [f"-{e.prompt}" for e in self.negatives])

    @classmethod
    def from_pairs(cls, concept: str, pairs: Iterable[tuple[str, str]], *, template: str = "{text}") -> "ContrastSet":
        """A contrast set from (positive, negative) texts of your own.

        Raises:
            TextError: there are no pairs, or a template without `{text}`.
        """
        return _build(
            {
                "format_version": FORMAT_VERSION,
                "name": concept,
                "concept": concept,
                "kind": "pairs",
                "template": template,
                "label": concept,
                "pairs": [{"positive": p, "negative": n} for p, n in pairs],
            },
            where=f"the pairs for {concept!r}",
        )


class _Pair(BaseModel):
    model_config = ConfigDict(extra="forbid")
    positive: str
    negative: str


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


def _data_folder() -> Path:
    return Path(str(files("contrans.data"))) / "concepts"


@cache
def contrast_set_names() -> tuple[str, ...]:
    """Names of the contrast sets that ship with the package."""
    folder = _data_folder()
    return tuple(sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml")))


@cache
def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise TextError(f"The contrast set {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TextError(f"The contrast set {path} is not valid YAML: {error}.") from error
    if not isinstance(loaded, dict):
        raise TextError(f"The contrast set {path} must be a mapping with `name`, `template` and texts.")
    return loaded


def contrast_set(name: str | Path) -> ContrastSet:
    """A contrast set by the name it ships under, or from a YAML file of the same format.

    Args:
        name: such as "emotion/anger", or a path that ends in .yaml or .yml.

    Raises:
        TextError: no such set, or a file that is malformed, empty or one-sided.
    """
    text = str(name)
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
    elif text in contrast_set_names():
        path = _data_folder() / f"{text}.yaml"
    else:
        close = get_close_matches(text, contrast_set_names(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(contrast_set_names())}."
        raise TextError(f"No contrast set is called {text!r}; {hint}")
    raw = _read(path)
    siblings: list[dict[str, Any]] = []
    if raw.get("kind") == "family":
        siblings = [_read(p) for p in sorted(path.parent.glob(f"*{path.suffix}"))]
        siblings = [s for s in siblings if s.get("family") == raw.get("family")]
    return _build(raw, where=str(name), siblings=siblings)


def contrast_sets(patterns: Sequence[str]) -> list[ContrastSet]:
    """Contrast sets by names, where "emotion/*" stands for a whole family; no doubles, order kept.

    Raises:
        TextError: a pattern matches nothing.
    """
    names: list[str] = []
    for pattern in patterns:
        if pattern.endswith("/*"):
            found = [n for n in contrast_set_names() if n.startswith(pattern[:-1])]
            if not found:
                raise TextError(f"No contrast set matches {pattern!r}; there are {', '.join(contrast_set_names())}.")
            names += found
        else:
            names.append(pattern)
    return [contrast_set(name) for name in dict.fromkeys(names)]


def _examples(file: _File, texts: Iterable[str]) -> tuple[Example, ...]:
    return tuple(Example(t, fill(file.template, t), split_of(t)) for t in texts)


def _build(raw: dict[str, Any], *, where: str, siblings: Sequence[dict[str, Any]] = ()) -> ContrastSet:
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
        positives = _examples(file, [p.positive for p in file.pairs] or file.positive)
        negatives = _examples(file, [p.negative for p in file.pairs] or file.negative)
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
    return tuple(
        Example(t, fill(file.template, t, prefixes[i % len(prefixes)]), split_of(t))
        for i, t in enumerate(file.texts)
        if prefixes
    )


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


def family_of(name: str | Path) -> list[ContrastSet]:
    """All contrast sets of the family that a set belongs to, itself included, in the order of their names.

    Raises:
        TextError: no such set, or it belongs to no family.
    """
    text = str(name)
    if text.endswith("/*"):
        return contrast_sets([text])
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        own = _read(path).get("family")
        found = [p for p in sorted(path.parent.glob(f"*{path.suffix}")) if own and _read(p).get("family") == own]
        sets = [contrast_set(p) for p in found]
    else:
        own = contrast_set(text)
        siblings = [n for n in contrast_set_names() if n.rpartition("/")[0] == text.rpartition("/")[0]]
        sets = [c for c in map(contrast_set, siblings) if c.labels == own.labels]
    if len(sets) < 2:
        raise TextError(f"The contrast set {text} belongs to no family; put `family:` in it and in its siblings.")
    return sets
