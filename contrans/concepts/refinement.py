"""Refining: from the states of a contrast set to a concept vector."""

import logging
from collections.abc import Mapping, Sequence

import torch

from contrans.concepts.contrast import ContrastSet
from contrans.concepts.diagnostics import held_out, split_half_cosine
from contrans.concepts.estimators import ESTIMATORS
from contrans.concepts.vector import ConceptVector
from contrans.errors import FitError, StateError
from contrans.models import Model, ModelRecord
from contrans.states.capturing import Progress, capture

log = logging.getLogger(__name__)


def refine(
    model: Model,
    contrast: ContrastSet,
    *,
    blocks: Sequence[int] | None = None,
    estimator: str = "mean_difference",
    split: str | None = "refine",
    precision: str = "float32",
    batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> ConceptVector:
    """Refines a concept vector: the direction from states without a concept to states with it.

    States are read at the last token of each prompt. Source: Dong et al. 2024 (arXiv 2405.13578), §3.1.

    Args:
        model: the model to read, which should hold the concept.
        contrast: the texts.
        blocks: block numbers; every block if None.
        estimator: a key of `contrans.concepts.estimators.ESTIMATORS`.
        split: which split of the texts to use; all texts if None.
        precision: "float32" or "bfloat16" products.
        batch_tokens: most tokens in one batch.
        progress: called with the number of tokens after every batch.

    Returns:
        A vector with one direction [d] per block, in the units of the model's residual stream.

    Raises:
        FitError: unknown estimator, or too few texts.
        TextError: an empty split or an overlong text.
        BlockError: the model has no such block.
    """
    part = contrast.split(split) if split else contrast
    prompts = [e.prompt for e in (*part.positives, *part.negatives)]
    states = capture(model, prompts, blocks=blocks, precision=precision, batch_tokens=batch_tokens, progress=progress)
    n = len(part.positives)
    return refine_states(
        {b: (rows[:n], rows[n:]) for b, rows in states.blocks.items()},
        concept=part.concept,
        model=model.record,
        estimator=estimator,
        provenance={
            "contrast_set": contrast.name,
            "texts": part.hash,
            "split": split,
            "template": part.template,
            "position": "last",
            "precision": precision,
        },
    )


def refine_states(
    states: Mapping[int, tuple[torch.Tensor, torch.Tensor]],
    *,
    concept: str,
    model: ModelRecord,
    estimator: str = "mean_difference",
    provenance: Mapping[str, object] = {},
) -> ConceptVector:
    """A concept vector from states that were captured before.

    Args:
        states: per block the positive [n, d] and negative [m, d] states.
        concept: its name.
        model: whose states they are.
        estimator: a key of `contrans.concepts.estimators.ESTIMATORS`.
        provenance: further facts to keep with the vector.

    Raises:
        FitError: unknown estimator, or fewer than two states on a side, or no difference between the sides.
        StateError: states that are not finite.
    """
    if estimator not in ESTIMATORS:
        raise FitError(f"No estimator is called {estimator!r}; there are {', '.join(ESTIMATORS)}.")
    estimate = ESTIMATORS[estimator]
    directions, spread, norms, measured = {}, {}, {}, {}
    for block, (positive, negative) in sorted(states.items()):
        if min(len(positive), len(negative)) < 2:
            raise FitError(
                f"{concept!r} has {len(positive)} positive and {len(negative)} negative states; "
                f"two of each are the least."
            )
        both = torch.cat([positive, negative]).double()
        if not bool(torch.isfinite(both).all()):
            raise StateError(f"States of {model.name} at block {block} are not finite; capture them in float32.")
        direction = estimate(positive, negative)
        if float(direction.norm()) == 0:
            raise FitError(
                f"Positive and negative states of {concept!r} are the same at block {block}; check the texts."
            )
        directions[block] = direction.float()
        spread[block] = float(both.var(0, correction=0).sum().sqrt())
        norms[block] = float(both.norm(dim=1).median())
        measured[block] = {
            "split_half_cosine": split_half_cosine(positive, negative, estimate),
            **held_out(positive, negative, estimate),
        }
    best = max(measured, key=lambda b: measured[b]["d_prime"])
    d, cosine = measured[best]["d_prime"], measured[best]["split_half_cosine"]
    if d < 1:
        log.warning(
            "%s: %s hardly holds this concept (held-out d′ %.2f at its best block %d).", concept, model.name, d, best
        )
    elif cosine < 0.8:
        log.warning("%s: halves of the texts give vectors of cosine %.2f; more texts would steady it.", concept, cosine)
    n, m = next((len(p), len(q)) for p, q in states.values())
    facts = {
        **provenance,
        "estimator": estimator,
        "n_positive": n,
        "n_negative": m,
        "diagnostics": {str(b): {k: round(v, 6) for k, v in d.items()} for b, d in measured.items()},
    }
    return ConceptVector(concept, model, directions, spread, norms, facts)
