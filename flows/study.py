"""What a spec is about: its texts read, its blocks settled, and everything refused that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from contrans.concepts.contrast import ContrastSet, contrast_sets, family_of
from contrans.errors import SpecError
from contrans.hashing import text_hash
from contrans.maps.corpora import Corpus, check_circularity, corpus, corpus_templates
from contrans.maps.depth import block_at
from contrans.validation.items import ordered, sides

if TYPE_CHECKING:
    from flows.spec import PipelineSpec

SIDES = ("source", "target")


class ModelFacts(Protocol):
    """What the keys and the planner need to know of a model."""

    @property
    def name(self) -> str:
        """Short name, safe in a path."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of its configuration and weights."""
        ...

    @property
    def n_blocks(self) -> int:
        """Number of decoder blocks."""
        ...


@dataclass(frozen=True)
class Study:
    """A spec with its texts read and its blocks settled: what the steps are about.

    Attributes:
        spec: the spec.
        contrasts: the concepts' contrast sets.
        family: the sets whose labels the model chooses from; for other protocols the concepts' own.
        texts: the corpus, every kind of row.
        rows: which of its rows are of which kind: "wrapped", "spread", "truncated", "plain".
        generic: texts for KL and perplexity, none of them in the corpus.
        pairs: source and target blocks to choose from.
    """

    spec: PipelineSpec
    contrasts: list[ContrastSet]
    family: list[ContrastSet]
    texts: Corpus
    rows: dict[str, range]
    generic: Corpus
    pairs: list[tuple[int, int]]

    def blocks(self, side: str) -> list[int]:
        """The blocks of "source" or "target" that may be chosen, in order."""
        return sorted({pair[SIDES.index(side)] for pair in self.pairs})

    def refined_from(self, contrast: ContrastSet) -> ContrastSet:
        """The texts that a concept's vector is refined from: the refine split, cut to the pairs asked for."""
        part, n = contrast.split("refine"), self.spec.refine.pairs
        if n is None:
            return part
        if part.paired:
            # a pair stays together
            order = sorted(range(len(part.positives)), key=lambda i: text_hash(part.positives[i].text))[:n]
            positives, negatives = (tuple(of[i] for i in order) for of in (part.positives, part.negatives))
        else:
            positives, negatives = (tuple(ordered(of)[:n]) for of in (part.positives, part.negatives))
        return replace(part, positives=positives, negatives=negatives)

    def refine_prompts(self) -> list[str]:
        """All prompts that the vectors are refined from, each once, in a fixed order."""
        sets = [self.refined_from(c) for c in self.contrasts]
        return sorted({e.prompt for s in sets for e in (*s.positives, *s.negatives)})

    def refine_answers(self) -> list[str]:
        """The answer that ends each of `refine_prompts`, "" where there is none."""
        answers = {e.prompt: e.answer for c in self.contrasts for e in (*c.positives, *c.negatives)}
        return [answers[prompt] for prompt in self.refine_prompts()]

    def rows_of(self, mix: Sequence[str]) -> list[int]:
        """Indices of the corpus rows of a mix of kinds."""
        return [i for kind in mix for i in self.rows.get(kind, ())]


def study(spec: PipelineSpec, source: ModelFacts, target: ModelFacts) -> Study:
    """Reads the texts that a spec names and settles its blocks.

    Raises:
        TextError: texts are missing, malformed or too few.
        CircularityError: a contrast text stands in the corpus.
        SpecError: the protocol cannot score the concepts, or a block does not exist.
    """
    contrasts = contrast_sets(spec.concepts)
    family = _family(spec, contrasts)
    texts, rows, generic = _corpus(spec, contrasts)
    for contrast in family:
        check_circularity(texts.texts, contrast.texts)
    return Study(spec, contrasts, family, texts, rows, generic, _pairs(spec, source, target))


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
    return sides(contrasts[0]) if len(contrasts[0].labels) == 2 else family_of(spec.concepts[0])


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


def _pairs(spec: PipelineSpec, source: ModelFacts, target: ModelFacts) -> list[tuple[int, int]]:
    from contrans.maps.selection import SOURCE_DEPTHS, TARGET_DEPTHS, pairs_within

    return pairs_within(
        _blocks("source", spec.blocks.source, source, SOURCE_DEPTHS),
        _blocks("target", spec.blocks.target, target, TARGET_DEPTHS),
        source.n_blocks,
        target.n_blocks,
        tolerance=spec.blocks.tolerance,
    )


def _blocks(side: str, wanted: Any, model: ModelFacts, automatic: Sequence[float]) -> list[int]:
    named = list(automatic) if wanted == "auto" else wanted if isinstance(wanted, list) else [wanted]
    found = []
    for one in named:
        block = block_at(one, model.n_blocks) if isinstance(one, float) else one
        if not 0 <= block < model.n_blocks:
            raise SpecError(
                f"blocks.{side} is {one}, but {model.name} has blocks 0 to {model.n_blocks - 1}; give one of them or a "
                f"depth between 0.0 and 1.0."
            )
        found.append(block)
    return sorted(set(found))
