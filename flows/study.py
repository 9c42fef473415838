"""What a spec is about: its texts read, its blocks settled, and everything refused that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from contrans.concepts.contrast import ContrastSet, contrast_sets, family_of
from contrans.errors import SpecError
from contrans.maps.corpora import Corpus, check_circularity, corpus
from contrans.maps.depth import block_at

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
        family: all contrast sets of the concepts' family; its labels are what the model chooses from.
        texts: the corpus, every kind of row.
        generic: texts for KL and perplexity, none of them in the corpus.
        source_block: block refined and mapped from.
        target_block: block mapped to and transplanted at.
    """

    spec: PipelineSpec
    contrasts: list[ContrastSet]
    family: list[ContrastSet]
    texts: Corpus
    generic: Corpus
    source_block: int
    target_block: int

    def block(self, side: str) -> int:
        """The block of "source" or "target"."""
        return self.source_block if side == "source" else self.target_block

    def refine_prompts(self) -> list[str]:
        """All prompts that the vectors are refined from, each once, in a fixed order."""
        examples = [e for c in self.contrasts for s in [c.split("refine")] for e in (*s.positives, *s.negatives)]
        return sorted({e.prompt for e in examples})


def study(spec: PipelineSpec, source: ModelFacts, target: ModelFacts) -> Study:
    """Reads the texts that a spec names and settles its blocks.

    Raises:
        TextError: texts are missing, malformed or too few.
        CircularityError: a contrast text stands in the corpus.
        SpecError: the concepts are no family that the protocol can score, or a block does not exist.
    """
    contrasts = contrast_sets(spec.concepts)
    families = {tuple(c.labels) for c in contrasts}
    if len(families) != 1 or len(contrasts[0].labels) < 3:
        raise SpecError(
            f"The emotion protocol scores concepts of one family, not {', '.join(c.name for c in contrasts)}; name "
            f"sets of "
            f"one family, such as emotion/*."
        )
    family = family_of(spec.concepts[0])
    rows = spec.corpus
    passages = corpus(rows.name)
    used = max(rows.wrapped, rows.truncated, rows.plain)
    base = passages.take(used)
    templates = sorted({c.template for c in contrasts})
    parts = [base.take(rows.wrapped // len(templates)).wrap(t) for t in templates] if rows.wrapped else []
    if rows.truncated:
        parts.append(base.take(rows.truncated).truncate())
    if rows.plain:
        parts.append(base.take(rows.plain))
    if not rows.wrapped + rows.plain:
        raise SpecError("The map has no rows to be fitted on; set corpus.wrapped or corpus.plain above 0.")
    texts = parts[0]
    for part in parts[1:]:
        texts = texts + part
    generic = passages.take(spec.validate_.generic_texts, start=len(passages) - spec.validate_.generic_texts)
    if used + len(generic) > len(passages):
        raise SpecError(
            f"The corpus {rows.name} has {len(passages)} texts: too few for {used} rows and "
            f"{len(generic)} generic texts."
        )
    for contrast in family:
        check_circularity(base.texts, contrast.texts)
    return Study(
        spec,
        contrasts,
        family,
        texts,
        generic,
        _block(spec, "source", source),
        _block(spec, "target", target),
    )


def _block(spec: PipelineSpec, side: str, model: ModelFacts) -> int:
    wanted = getattr(spec.blocks, side)
    block = block_at(wanted, model.n_blocks) if isinstance(wanted, float) else wanted
    if not 0 <= block < model.n_blocks:
        raise SpecError(
            f"blocks.{side} is {wanted}, but {model.name} has blocks 0 to {model.n_blocks - 1}; give one of them or a "
            f"depth "
            f"between 0.0 and 1.0."
        )
    return block
