"""Which items a protocol scores, what stands before them, and how often they are scored: all without a model."""

from collections.abc import Sequence
from dataclasses import replace

from contrans.concepts.contrast import ContrastSet, Example
from contrans.errors import TextError
from contrans.hashing import text_hash

CURVE_DRAWS = 3
"""Random directions behind each point of the dev curve; the test has its own, more numerous draws."""
FACTORS = (0.35, 0.7, 1.0, 1.4, 2.0)
"""Doses of a curve around the one that meets a KL budget, as multiples of it."""


def ordered(examples: Sequence[Example]) -> list[Example]:
    """Examples in the order of their hashes, so that the first k are a fixed, unbiased sample."""
    return sorted(examples, key=lambda e: text_hash(e.text))


def sides(contrast: ContrastSet) -> list[ContrastSet]:
    """Both sides of a pair of opposites, as a family of two labels: the set itself, and the set turned round.

    Raises:
        TextError: the set does not name the word for either side.
    """
    if len(contrast.labels) != 2:
        raise TextError(
            f"The contrast set {contrast.name} has no pair of labels, so a model cannot be asked which side a "
            f"text is on; give it `label:` and `negative_label:`."
        )
    turned = replace(
        contrast,
        name=f"{contrast.name}/opposite",
        concept=f"opposite of {contrast.concept}",
        label=next(label for label in contrast.labels if label != contrast.label),
        positives=contrast.negatives,
        negatives=contrast.positives,
    )
    return [contrast, turned]


def few_shot_prefix(family: Sequence[ContrastSet]) -> str:
    """One labelled scenario per label, from the refine split, each with its correct label."""
    shots = [f"{ordered(c.split('refine').positives)[0].prompt} {c.label}\n\n" for c in family]
    return "".join(shots)


def n_scorings(arms: Sequence[str], n_concepts: int, n_doses: int, draws: int, shuffles: int = 1) -> int:
    """How often all items are scored on dev (`n_doses` > 0) or on test (`n_doses` = 1 and `draws`).

    Args:
        arms: arms that are measured.
        n_concepts: concepts that each is measured for.
        n_doses: doses of each.
        draws: random directions.
        shuffles: maps of shuffled rows.
    """
    steered = [a for a in arms if a != "unsteered"]
    asked = 0 if n_doses != 1 or "prompt" not in steered else n_concepts
    own = sum(
        n_concepts * (shuffles if a == "shuffled_map" else 1)
        for a in steered
        if a not in ("random", "wrong_concept", "prompt")
    )
    return 1 + asked + n_doses * (own + (draws if "random" in steered else 0))
