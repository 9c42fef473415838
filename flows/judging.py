"""Which items a spec's protocol scores, what they cost, and the protocol itself once a model is there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrans.concepts.splits import split_of
from contrans.hashing import digest
from contrans.rereading import read_once
from contrans.validation.items import few_shot_prefix, ordered

if TYPE_CHECKING:
    from contrans.models import Model
    from contrans.validation.protocol import ItemProtocol
    from flows.study import Study

NEW_TOKENS = 40
_NAME = 16
"""Hexadecimal digits of an item's name."""


@dataclass(frozen=True)
class Items:
    """The items of one split.

    Attributes:
        texts: what the model reads for one scoring of all items, what they share left out.
        shared: what stands before every item.
        head_rows: rows that go through the language-model head in one scoring.
        written: tokens that the model writes in one scoring.
        key: hash of all that decides the items.
        names: of the items, in order: equal where the item is.
    """

    texts: list[str]
    shared: str
    head_rows: int
    written: int
    key: str
    names: list[str]


def items(study: Study, split: str) -> Items:
    """The items of "dev" or "test", told without a model.

    Raises:
        TextError: the protocol's data cannot be read.
        CircularityError: an item stands in the map's corpus or in the contrast set.
    """
    return {"emotion": _emotion_items, "truthfulqa": _truthfulqa_items, "toxicity": _toxicity_items}[
        study.spec.validate_.protocol
    ](study, split)


def protocol(study: Study, model: Model, split: str, block: int, precision: str) -> ItemProtocol:
    """The spec's protocol on the items of a split, for shifts of one block."""
    v = study.spec.validate_
    if v.protocol == "truthfulqa":
        from contrans.validation.truthfulqa import TruthfulQA

        concept = study.contrasts[0].concept
        return TruthfulQA(
            model, _questions(study, split), block=block, concept=concept, prompt=v.prompt, precision=precision
        )
    if v.protocol == "toxicity":
        from contrans.validation.classifier import Classifier
        from contrans.validation.toxicity import Toxicity

        judge = Classifier.load(str(v.classifier))
        concepts = [c.concept for c in study.contrasts]
        return Toxicity(
            model,
            _toxigen(study, split),
            judge,
            block=block,
            concepts=concepts,
            max_new_tokens=NEW_TOKENS,
            seed=study.spec.seed,
        )
    from contrans.validation.emotion import EmotionProtocol

    return EmotionProtocol(
        model,
        study.family,
        block=block,
        split=split,
        per_label=_per_label(study, split),
        effect=v.effect,
        precision=precision,
    )


def chance(study: Study) -> dict[str, float]:
    """What guessing scores, by metric, where that says something."""
    if study.spec.validate_.protocol == "truthfulqa":
        from contrans.validation.truthfulqa_data import chance_levels

        return chance_levels(_questions(study, "test"))
    if study.spec.validate_.protocol == "emotion":
        return {"logit_accuracy_positives": 1 / len(study.family)}
    return {}


def _per_label(study: Study, split: str) -> int | None:
    v = study.spec.validate_
    if split == "test":
        return v.test_per_label
    # a choice between maps needs as many texts for two labels as it does for six
    pair = v.protocol == "emotion" and len(study.family) == 2
    return v.dev_per_label and v.dev_per_label * (3 if pair else 1)


def _emotion_items(study: Study, split: str) -> Items:
    n = _per_label(study, split)
    return study.once(("items", split, n), lambda: _items_of_family(study, split, n))


def _items_of_family(study: Study, split: str, n: int | None) -> Items:
    texts = [e.prompt for c in study.family for e in ordered(c.split(split).positives)[:n]]
    key = digest([n, [[c.name, c.label, c.split("refine").hash, c.split(split).hash] for c in study.family]])
    return Items(texts, few_shot_prefix(study.family), len(texts), 0, key, _names(texts))


def _questions(study: Study, split: str) -> list[Any]:
    """Dev questions by hash. All are tested where dev did not choose the dose, else those that dev has not seen."""
    from contrans.validation.truthfulqa_data import check_unseen

    v = study.spec.validate_
    every = _read_truthfulqa(Path(str(v.data)))
    check_unseen(every, study.contrasts[0])
    dev = [q for q in every if split_of(q.question) == "dev"]
    chosen_on_dev = v.select == "effect" or len(study.pairs) > 1 or len(study.spec.corpus.candidates) > 1
    test = [q for q in every if split_of(q.question) != "dev"] if chosen_on_dev else every
    chosen = dev if split == "dev" else test
    return chosen[: _per_label(study, split)]


@read_once
def _read_truthfulqa(path: Path) -> list[Any]:
    from contrans.validation.truthfulqa_data import read_truthfulqa

    return read_truthfulqa(path)


def _truthfulqa_items(study: Study, split: str) -> Items:
    from contrans.maps.corpora import check_circularity
    from contrans.validation.truthfulqa_prompts import prompt_named

    questions = _questions(study, split)
    check_circularity(study.texts.texts, [q.question for q in questions])
    prompt = prompt_named(study.spec.validate_.prompt)
    answers = [[*q.true_answers, *q.false_answers] for q in questions]
    texts = [f"{q.question} {a}" for q, of in zip(questions, answers, strict=True) for a in of]
    spoken = round(sum(len(a) for of in answers for a in of) / 4.3)
    shared = prompt("").removesuffix("Q: \nA:")
    key = digest([list(map(asdict, questions)), study.spec.validate_.prompt])
    return Items(texts, shared, spoken, 0, key, _names([q.question for q in questions]))


def _toxigen(study: Study, split: str) -> list[Any]:
    """Prompts by group. Dev and test draw theirs from demonstrations that the other does not use."""
    from contrans.validation.toxigen import read_toxigen, split_demonstrations, toxigen_prompts

    dev, test = split_demonstrations(read_toxigen(str(study.spec.validate_.data)))
    return toxigen_prompts(
        dev if split == "dev" else test, per_group=_per_label(study, split) or 200, seed=study.spec.seed
    )


def _toxicity_items(study: Study, split: str) -> Items:
    prompts = _toxigen(study, split)
    written = NEW_TOKENS * len(prompts)
    key = digest([list(map(asdict, prompts)), study.spec.validate_.classifier])
    texts = [p.text for p in prompts]
    return Items(texts, "", written, written, key, _names(texts))


def _names(texts: list[str]) -> list[str]:
    return [digest(text)[:_NAME] for text in texts]
