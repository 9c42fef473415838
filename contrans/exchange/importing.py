"""From a foreign file's directions to a concept vector like our own: with the scales that a dose and a map go by."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from contrans.concepts.diagnostics import auc, d_prime
from contrans.concepts.examples import ContrastSet
from contrans.concepts.vector import ConceptVector
from contrans.errors import ArtifactError, TextError
from contrans.exchange.foreign import Foreign, check_fits
from contrans.models import Model
from contrans.states.capturing import capture


def concept_vector_of(
    found: Foreign,
    model: Model,
    *,
    concept: str,
    measured_on: ContrastSet | Sequence[str],
    origin: Mapping[str, Any] = {},
    what: str = "the file",
    allow_mismatch: bool = False,
) -> ConceptVector:
    """Makes a concept vector of directions that another tool found in a model.

    A file says in which direction a concept lies, and neither how long the states are nor how far they spread, by which
    a dose and a map measure. Both are measured here as `refine` does it, on states at the last tokens of texts.

    Args:
        found: the directions.
        model: the model that they are of.
        concept: its name here.
        measured_on: the texts to measure on; of a contrast set the refine split, and then how well each direction
            tells its two sides apart is noted too.
        origin: where it came from, plain JSON.
        what: name of the file, for messages.
        allow_mismatch: whether a file that was made for another kind of model of the same size will do.

    Raises:
        ArtifactError: the directions cannot be the model's, or it is a transplant's shift for other weights.
        TextError: fewer than two texts, or one that does not fit the model.
        StateError: states that are not finite.
    """
    check_fits(found, model.record, what=what, allow_mismatch=allow_mismatch)
    fingerprint = found.facts.get("fingerprint")
    if fingerprint is not None and fingerprint != model.fingerprint and not allow_mismatch:
        raise ArtifactError(
            f"{what} was made for other weights than those of {model.name} (fingerprint {str(fingerprint)[:12]}…); "
            f"name the model that it was made for, or add --allow-mismatch."
        )
    texts, n = _texts(measured_on)
    states = capture(model, texts, blocks=sorted(found.directions))
    spread, norms, measured = {}, {}, {}
    for block, direction in found.directions.items():
        rows = states[block].double()
        spread[block] = float(rows.var(0, correction=0).sum().sqrt())
        norms[block] = float(rows.norm(dim=1).median())
        if n is not None:
            along = rows @ (direction.double() / direction.double().norm())
            measured[str(block)] = _told_apart(along[:n], along[n:])
    facts: dict[str, Any] = {
        "estimator": str(origin.get("format", "imported")),
        "imported": {**origin, **({"says": dict(found.facts)} if found.facts else {})},
        # what the file itself would add where its tool applies it with a coefficient of 1
        "length_in_residual_norms": {str(b): float(v.norm()) / norms[b] for b, v in found.directions.items()},
    }
    if isinstance(measured_on, ContrastSet):
        facts |= {
            "template": measured_on.template,
            "scales_measured_on": {"contrast_set": measured_on.name, "texts": measured_on.split("refine").hash},
            "diagnostics": measured,
        }
    else:
        facts["scales_measured_on"] = {"n_texts": len(texts)}
    return ConceptVector(concept, model.record, dict(found.directions), spread, norms, facts)


def _texts(measured_on: ContrastSet | Sequence[str]) -> tuple[list[str], int | None]:
    """The prompts, and how many of them, the first ones, are of the positive side; None where there are no sides."""
    if isinstance(measured_on, ContrastSet):
        part = measured_on.split("refine")
        return [e.prompt for e in (*part.positives, *part.negatives)], len(part.positives)
    texts = list(measured_on)
    if len(texts) < 2:
        raise TextError(f"{len(texts)} texts are too few to measure hidden states on; give two or more.")
    return texts, None


def _told_apart(positive: torch.Tensor, negative: torch.Tensor) -> dict[str, float]:
    return {"d_prime": round(d_prime(positive, negative), 6), "auc": round(auc(positive, negative), 6)}
