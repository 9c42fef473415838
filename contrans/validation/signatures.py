"""Failure signatures of vectors, maps and steered text: a sentence that says what is wrong and what to do about it.

Each function judges one thing and returns its finding, or None where all is well.
"""

from collections.abc import Sequence

from contrans.validation.claims import CONTROLS
from contrans.validation.finding import Finding
from contrans.validation.wording import listed, percent, shown, spoken

MIN_D_PRIME = 1.0
MIN_SPLIT_HALF = 0.8
MIN_SURVIVAL = 0.5
MIN_MATCH_RATE, STRANGERS = 0.67, 0.24
"""The same as in `contrans.states.pairing`, which needs torch."""
MIN_NORM = ("paper", "lstsq")
"""Estimators without a penalty, whose error peaks where rows and source dimensions are equally many."""
ROWS_PER_DIMENSION = 10
MAX_PERPLEXITY_RATIO = 10.0
MIN_DISTINCT_2 = 0.3
MAX_REPETITION = 0.5
MAX_DEGENERATE = 0.2
MAX_EMPTY_OR_COPIED, MOSTLY = 0.2, 0.5


def concept_absent(concept: str, d_prime: float, split_half_cosine: float | None = None) -> Finding | None:
    """Whether the source holds a concept at all.

    Args:
        concept: the concept.
        d_prime: held-out distance of the means along its vector, in standard deviations; below 1 is absent.
        split_half_cosine: between vectors of two halves of the texts; below .8 is mostly noise.
    """
    if d_prime < MIN_D_PRIME:
        return Finding(
            "concept_absent",
            "failure",
            f"The source hardly holds {concept}: with and without it, held-out states are {d_prime:.2f} standard "
            f"deviations apart (d′ below 1). Refine it at another block or token, or take a source that has learnt it.",
        )
    if split_half_cosine is not None and split_half_cosine < MIN_SPLIT_HALF:
        return Finding(
            "vector_unsteady",
            "warning",
            f"The vector of {concept} is unsteady: halves of its texts give vectors of cosine {split_half_cosine:.2f} "
            f"(below .8). Add texts to its contrast set.",
        )
    return None


def corpus_does_not_cover(survival: float, concept: str = "the concepts") -> Finding | None:
    """Whether the map's corpus has the directions that a concept needs: survival κ below .5 is too little."""
    if survival >= MIN_SURVIVAL:
        return None
    return Finding(
        "corpus_does_not_cover",
        "warning",
        f"The corpus does not cover {concept}: {percent(survival)} of the vector survives the map (κ below .5). Wrap "
        f"more of the corpus in the concept's template, or add texts about it.",
    )


def tokenizers_unlike(match_rate: float) -> Finding | None:
    """Whether tokens of the two models end at the same characters often enough to be paired."""
    if match_rate >= MIN_MATCH_RATE:
        return None
    said = f"{percent(match_rate)} of the source's tokens end where one of the target's does"
    if match_rate >= STRANGERS:
        return Finding(
            "tokenizers_unlike",
            "warning",
            f"The tokenizers are unlike: {said}. Fit the map on more text, so that enough pairs remain.",
        )
    return Finding(
        "tokenizers_unlike",
        "failure",
        f"The tokenizers are too unlike: {said}, so the map is fitted on a peculiar few. Pair last tokens only, or "
        f"choose a source whose tokenizer is closer.",
    )


def rows_near_dimension(n: int, width: int, estimator: str = "ridge") -> Finding | None:
    """Whether a map was fitted on too few rows.

    Args:
        n: paired rows.
        width: hidden size of the source, ds.
        estimator: of the map; those without a penalty have an error peak at n ≈ ds (|n/ds − 1| < .5).
    """
    if estimator in MIN_NORM and abs(n / width - 1) < 0.5:
        return Finding(
            "rows_near_dimension",
            "warning",
            f"The {estimator} map was fitted on {n:,} rows for {width:,} source dimensions, where its error peaks. "
            f"Fit it on {ROWS_PER_DIMENSION * width:,} rows or more, or take ridge.",
        )
    if n < ROWS_PER_DIMENSION * width:
        return Finding(
            "few_rows",
            "note",
            f"The map was fitted on {n:,} rows, {n / width:.1f} for each of {width:,} source dimensions. "
            f"{ROWS_PER_DIMENSION * width:,} rows or more would steady it.",
        )
    return None


def degenerate_text(
    arm: str,
    *,
    perplexity_ratio: float | None = None,
    distinct_2: float | None = None,
    base_distinct_2: float | None = None,
    repetition: float | None = None,
    degenerate: float | None = None,
) -> Finding | None:
    """Whether a shift is so large that the text falls apart.

    Args:
        arm: what was added; a failure for the transplant, a warning for other arms, a note for controls.
        perplexity_ratio: of generic text to the unsteered model's; above 10.
        distinct_2: share of different word pairs in what it writes; below .3, or below half of the unsteered model's.
        base_distinct_2: the unsteered model's.
        repetition: share of n-grams that stood before; above .5.
        degenerate: share of texts that loop or are word salad; above .2.
    """
    signs = []
    if perplexity_ratio is not None and perplexity_ratio > MAX_PERPLEXITY_RATIO:
        signs.append(f"the perplexity of generic text is {shown(perplexity_ratio)} × the unsteered model's")
    least = MIN_DISTINCT_2 if base_distinct_2 is None else base_distinct_2 / 2
    if distinct_2 is not None and distinct_2 < least:
        signs.append(f"only {percent(distinct_2)} of its word pairs are different ones")
    if repetition is not None and repetition > MAX_REPETITION:
        signs.append(f"{percent(repetition)} of what it writes stood there before")
    if degenerate is not None and degenerate > MAX_DEGENERATE:
        signs.append(f"{percent(degenerate)} of its texts loop or are word salad")
    if not signs:
        return None
    if arm in CONTROLS:
        advice = "so its score proves little. Compare the arms at an equal KL"
        return Finding(
            "degenerate_text", "note", f"The control {spoken(arm)} breaks the model: {listed(signs)}, {advice}."
        )
    return Finding(
        "degenerate_text",
        "failure" if arm == "transplanted" else "warning",
        f"The dose of {spoken(arm)} is so high that the text falls apart: {listed(signs)}. Lower the dose, or choose "
        f"it under a KL budget.",
    )


def unsafe_safety(arm: str, *, empty: float = 0.0, copied: float = 0.0) -> Finding | None:
    """Whether an arm looks safe since it writes nothing, or only the prompt again.

    Args:
        arm: what was added.
        empty: share of continuations without a word.
        copied: share that repeat the prompt.
    """
    if empty + copied < MAX_EMPTY_OR_COPIED:
        return None
    return Finding(
        "unsafe_safety",
        "failure" if empty + copied >= MOSTLY and arm == "transplanted" else "warning",
        f"{spoken(arm).capitalize()}: {percent(empty)} of the continuations are empty and {percent(copied)} copy the "
        f"prompt, so that little toxic text among them proves nothing. Judge the others alone, and lower the dose.",
    )


def dose_at_edge(arm: str, dose: float, candidates: Sequence[float]) -> Finding | None:
    """Whether the chosen dose is the largest of several candidates, so that the best may lie beyond."""
    if len(set(candidates)) < 2 or dose < max(candidates):
        return None
    return Finding(
        "dose_at_edge",
        "note",
        f"The dose of {spoken(arm)}, {dose:g}, is the largest that was tried, so a larger one may do more. Add larger "
        f"doses, and watch the KL.",
    )
