"""The texts that a spec names, read once for all pipelines of a process while their files stay what they are."""

from __future__ import annotations

import os
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrans.concepts.contrast import ContrastSet, contrast_sets, family_of
from contrans.errors import RegistryError, SpecError
from contrans.hashing import canonical_json
from contrans.maps.corpora import Corpus, check_circularity, corpus, corpus_templates
from contrans.validation.items import sides
from registry.names import check_name

if TYPE_CHECKING:
    from flows.spec import PipelineSpec

_MOST = 16
"""Sets of texts that are kept: those that were read last."""
_SETS, _CORPORA = (".yaml", ".yml"), (".txt", ".jsonl")


@dataclass(frozen=True)
class Texts:
    """What `flows.study.Study` says of the texts of a spec; its attributes are described there."""

    contrasts: list[ContrastSet]
    family: list[ContrastSet]
    texts: Corpus
    rows: dict[str, range]
    generic: Corpus
    kept: dict[Hashable, Any] = field(default_factory=dict)


_KNOWN: dict[str, tuple[list[object], Texts]] = {}


def read_texts(spec: PipelineSpec) -> Texts:
    """Reads the texts that a spec names, or gives those that were read before if no file has changed since.

    Raises:
        TextError: texts are missing, malformed or too few.
        CircularityError: a contrast text stands in the corpus.
        SpecError: the protocol cannot score the concepts.
    """
    asked = [spec.concepts, spec.corpus.texts, spec.validate_.protocol, spec.validate_.generic_texts]
    name = canonical_json([str(Path.cwd()), *asked])
    stamps = [stamp for place in _places(spec) for stamp in _stamps(place)]
    known = _KNOWN.pop(name, None)
    if known is None or known[0] != stamps:
        known = (stamps, _read(spec))
    _KNOWN[name] = known
    if len(_KNOWN) > _MOST:
        del _KNOWN[next(iter(_KNOWN))]
    return known[1]


def _read(spec: PipelineSpec) -> Texts:
    contrasts = contrast_sets(spec.concepts)
    for contrast in contrasts:
        _check_concept(contrast)
    family = _family(spec, contrasts)
    texts, rows, generic = _corpus(spec, contrasts)
    for contrast in family:
        check_circularity(texts.texts, contrast.texts)
    return Texts(contrasts, family, texts, rows, generic)


def _check_concept(contrast: ContrastSet) -> None:
    """Refuses a concept that its versions in the registry could not be named by."""
    try:
        check_name(contrast.concept, "concept")
    except RegistryError as error:
        raise SpecError(f"{error} Mend `concept:` in the contrast set {contrast.name}.") from error


def _places(spec: PipelineSpec) -> list[str]:
    """Where the files of a spec lie; what ships with the package does not change."""
    # a family is all files of a folder that say so
    sets = dict.fromkeys(str(Path(name).parent) for name in spec.concepts if name.endswith(_SETS))
    return [*sets, *([spec.corpus.name] if spec.corpus.name.endswith(_CORPORA) else [])]


def _stamps(place: str) -> list[object]:
    """What tells whether files have changed, without reading them."""
    try:
        if place.endswith(_CORPORA):
            entries = [("", Path(place).stat())]
        else:
            with os.scandir(place) as found:
                entries = [(entry.name, entry.stat()) for entry in found if entry.name.endswith(_SETS)]
    except OSError as error:
        return [str(error)]  # whoever reads it says so
    return [*sorted((name, status.st_ino, status.st_mtime_ns, status.st_size) for name, status in entries)]


def _family(spec: PipelineSpec, contrasts: list[ContrastSet]) -> list[ContrastSet]:
    if spec.validate_.protocol != "emotion":
        if len(contrasts) > 1:
            raise SpecError(
                f"The protocol {spec.validate_.protocol} judges one concept, not {len(contrasts)}; name one contrast "
                f"set."
            )
        return contrasts
    families = {tuple(c.labels) for c in contrasts}
    if len(families) != 1 or len(contrasts[0].labels) < 2:
        raise SpecError(
            f"The emotion protocol scores concepts of one family, or a pair of labels, not "
            f"{', '.join(c.name for c in contrasts)}; name sets of one family, such as emotion/*."
        )
    labels = contrasts[0].labels
    if len(labels) > 2:
        return family_of(spec.concepts[0])
    if len(contrasts) == 1:
        return sides(contrasts[0])
    of_label = {c.label: c for c in contrasts}
    if len(of_label) < len(contrasts):
        raise SpecError(
            f"{' and '.join(c.name for c in contrasts)} are about the same pair of labels, {' and '.join(labels)}, and "
            f"the emotion protocol scores a label once; name one of them, and the others in specs of their own."
        )
    return [of_label[label] for label in labels]


def _corpus(spec: PipelineSpec, contrasts: list[ContrastSet]) -> tuple[Corpus, dict[str, range], Corpus]:
    rows = spec.corpus
    passages = corpus(rows.name)
    n_generic = spec.validate_.generic_texts
    # other passages than the wrapped ones where there are enough, so that more documents stand behind a map
    start = max(0, min(rows.wrapped, len(passages) - n_generic - rows.spread))
    used = max(rows.wrapped, rows.truncated, rows.plain, start + rows.spread)
    if used + n_generic > len(passages):
        raise SpecError(
            f"The corpus {rows.name} has {len(passages)} texts: too few for {used} rows and {n_generic} generic texts; "
            f"ask for fewer rows."
        )
    templates = sorted({c.template for c in contrasts})
    parts: dict[str, Corpus] = {}
    if rows.wrapped:
        share = rows.wrapped // len(templates)
        names = ["wrapped"] if len(templates) == 1 else [f"wrapped/{i}" for i in range(len(templates))]
        wrapped = [passages.take(share).wrap(t, kind=k) for t, k in zip(templates, names, strict=True)]
        parts["wrapped"] = sum(wrapped[1:], wrapped[0])
    if rows.spread:
        others = {k: t for k, t in corpus_templates(leave_out=rows.leave_out).items() if t not in templates}
        parts["spread"] = passages.take(rows.spread, start=start).spread(others)
    if rows.truncated:
        parts["truncated"] = passages.take(rows.truncated).truncate()
    if rows.plain:
        parts["plain"] = passages.take(rows.plain)
    ranges: dict[str, range] = {}
    for kind, part in parts.items():
        first = max((r.stop for r in ranges.values()), default=0)
        ranges[kind] = range(first, first + len(part))
    texts = sum(list(parts.values())[1:], next(iter(parts.values())))
    return texts, ranges, passages.take(n_generic, start=len(passages) - n_generic)
