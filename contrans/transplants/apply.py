"""From concept vectors to a transplant: how much of each goes in, and at which block."""

from collections.abc import Sequence

import torch

from contrans.concepts.vector import ConceptVector
from contrans.errors import ArtifactError, SpecError
from contrans.models import Model
from contrans.transplants import compose
from contrans.transplants.context import Transplant, check_operation
from contrans.transplants.operations import SETS_PROJECTION


def transplant(
    model: Model,
    vector: ConceptVector | Sequence[ConceptVector],
    *,
    dose: float | Sequence[float] = 0.2,
    block: int | Sequence[int] | None = None,
    positions: str = "all",
    operation: str = "add",
    combine: str = "sum",
) -> Transplant:
    """Adds concepts to a model's residual stream inside a `with`.

    h ← h + dose · r · v/‖v‖ at the block, where r is the median norm of the residual stream there, so that a
    dose means the same on models whose residual streams differ a thousandfold. Right with KV cache, left and right
    padding, batches and beam search. Source: Dong et al. 2024 (arXiv 2405.13578), equation 4.

    Args:
        model: the model to change while the context is open.
        vector: a concept vector in this model's hidden space, refined there or mapped into it; or several. Those
            that meet at a block are combined there; `ConceptVector.at` puts each at a block of its own.
        dose: size of the shift in residual norms; negative for the opposite. One for all vectors, or one each.
        block: which of the vectors' blocks, or several, each of which gets the whole dose; needed if a vector has more
            than one.
        positions: "all", "prompt", "generated", or "last" (the prompt's last token and all that follow), each without
            BOS; or "with_bos", all of them and BOS, as `bake` does it.
        operation: "add"; "add_preserving_norm", which turns the state and keeps its length; "clamp", which sets the
            projection onto v/‖v‖ to dose · r; or "ablate", which removes it, whatever the dose.
        combine: how vectors that meet at a block make one shift: "sum", "loewdin", "gram_schmidt" or "solve"; see
            `contrans.transplants.compose.parts`. To clamp or ablate several they must be made orthogonal.

    Raises:
        ArtifactError: a vector belongs to another model.
        BlockError: no such block, or several and none named.
        SpecError: unknown positions, operation or combination, or not one dose per vector.
        FitError: vectors that meet at a block are too alike for the combination.
    """
    vectors = [vector] if isinstance(vector, ConceptVector) else list(vector)
    doses = list(dose) if isinstance(dose, Sequence) else [float(dose)] * len(vectors)
    check_operation(operation)
    compose.check_method(combine)
    if not vectors or len(doses) != len(vectors):
        raise SpecError(f"{len(doses)} doses were given for {len(vectors)} vectors; give one for all, or one each.")
    meeting: dict[int, list[tuple[ConceptVector, float]]] = {}
    for v, d in zip(vectors, doses, strict=True):
        if v.model.fingerprint != model.fingerprint:
            raise ArtifactError(
                f"The vector {v.concept!r} belongs to {v.model.name}, not to {model.name}; map it with a map "
                f"between the two first."
            )
        named_blocks = [v.only_block()] if block is None else [block] if isinstance(block, int) else list(block)
        for at in dict.fromkeys(named_blocks):
            meeting.setdefault(at, []).append((v, 1.0 if operation == "ablate" else d))
    shifts = {at: _together(pairs, at, operation, combine) for at, pairs in meeting.items()}
    return Transplant(model, shifts, positions=positions, operation=operation)


def shift_of(vector: ConceptVector, dose: float, block: int) -> torch.Tensor:
    """Dose · r · v/‖v‖ [d], float32, with r the vector's residual norm at the block."""
    direction = vector.direction(block).double()
    return (direction * (dose * vector.residual_norm[block] / float(direction.norm()))).float()


def _together(pairs: Sequence[tuple[ConceptVector, float]], block: int, operation: str, method: str) -> torch.Tensor:
    """The shift of all vectors at a block: [d], or [k, d] where each is to act by itself."""
    if len(pairs) == 1:
        [(vector, dose)] = pairs
        return shift_of(vector, dose, block)
    directions = torch.stack([v.direction(block).float() for v, _ in pairs])
    doses, norms = [d for _, d in pairs], [v.residual_norm[block] for v, _ in pairs]
    if operation not in SETS_PROJECTION:
        return compose.combine(directions, doses, method, norms)
    if method not in compose.ORTHOGONAL:
        raise SpecError(
            f"To {operation} several vectors at one block they must be orthogonal, or the second undoes the first; "
            f"choose combine={' or '.join(map(repr, compose.ORTHOGONAL))}."
        )
    return compose.parts(directions, doses, method, norms).float()
