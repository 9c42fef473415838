"""What a spec is about: its texts read, its blocks settled, and everything refused that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from contrans.concepts.contrast import ContrastSet
from contrans.errors import SpecError
from contrans.hashing import text_hash
from contrans.maps.corpora import Corpus
from contrans.maps.depth import block_at
from contrans.validation.items import ordered
from flows.texts import read_texts

if TYPE_CHECKING:
    from flows.spec import PipelineSpec

SIDES = ("source", "target")
_Made = TypeVar("_Made")


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
    def family(self) -> str:
        """The configuration's `model_type`."""
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
        kept: what was made from the texts, for all studies of the same ones.
    """

    spec: PipelineSpec
    contrasts: list[ContrastSet]
    family: list[ContrastSet]
    texts: Corpus
    rows: dict[str, range]
    generic: Corpus
    pairs: list[tuple[int, int]]
    kept: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    def once(self, what: Hashable, make: Callable[[], _Made]) -> _Made:
        """Something made from the texts alone, made once for all studies of the same texts.

        Args:
            what: all that it is made from besides the texts.
            make: makes it.
        """
        if what not in self.kept:
            self.kept[what] = make()
        return self.kept[what]

    def blocks(self, side: str) -> list[int]:
        """The blocks of "source" or "target" that may be chosen, in order."""
        return sorted({pair[SIDES.index(side)] for pair in self.pairs})

    def refined_from(self, contrast: ContrastSet) -> ContrastSet:
        """The texts that a concept's vector is refined from: the refine split, cut to the pairs asked for."""
        n = self.spec.refine.pairs
        return self.once(("refined", contrast.name, n), lambda: self._refined_from(contrast, n))

    @staticmethod
    def _refined_from(contrast: ContrastSet, n: int | None) -> ContrastSet:
        part = contrast.split("refine")
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
        return list(self.once(("prompts", self.spec.refine.pairs), self._refine_prompts))

    def _refine_prompts(self) -> list[str]:
        sets = [self.refined_from(c) for c in self.contrasts]
        return sorted({e.prompt for s in sets for e in (*s.positives, *s.negatives)})

    def refine_answers(self) -> list[str]:
        """The answer that ends each of `refine_prompts`, "" where there is none."""
        return list(self.once(("answers", self.spec.refine.pairs), self._refine_answers))

    def _refine_answers(self) -> list[str]:
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
    read = read_texts(spec)
    of_texts = (read.contrasts, read.family, read.texts, read.rows, read.generic)
    return Study(spec, *of_texts, _pairs(spec, source, target), read.kept)


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
