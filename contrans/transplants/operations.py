"""Pure edits of hidden states: `(hidden [..., d], shift [d]) → new hidden`, in float32, never in place.

A shift s has a direction u = s/‖s‖ and a length ‖s‖; its sign is that of the dose.
"""

from collections.abc import Callable

import torch

Operation = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_TINY = torch.finfo(torch.float32).tiny


def add(hidden: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Adds the shift: h + s (Dong et al. 2024, arXiv 2405.13578, equation 4)."""
    return hidden + shift


def add_preserving_norm(hidden: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Turns the state towards the concept and keeps its length: (h + s) · ‖h‖ / ‖h + s‖."""
    moved = hidden + shift
    return moved * (_length(hidden) / _length(moved).clamp_min(_TINY))


def clamp(hidden: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Sets the projection onto u to ‖s‖, whatever it was: h + (‖s‖ − h·u) u.

    So h·v/‖v‖ becomes dose · r, for a negative dose too. The fixed value counts from zero: where texts without
    the concept project onto v/‖v‖ elsewhere, that value, in the unit of the dose, is to be added to the dose.
    """
    length = shift.norm()
    along = shift / length
    return hidden + (length - _projection(hidden, along)) * along


def ablate(hidden: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Removes the projection onto u: h − (h·u) u; length and sign of the shift do not matter.

    Source: Arditi et al. 2024 (arXiv 2406.11717), directional ablation.
    """
    along = shift / shift.norm()
    return hidden - _projection(hidden, along) * along


def _projection(hidden: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    # no matrix product: autocast would compute that in bf16
    return (hidden * along).sum(dim=-1, keepdim=True)


def _length(hidden: torch.Tensor) -> torch.Tensor:
    return hidden.norm(dim=-1, keepdim=True)


OPERATIONS: dict[str, Operation] = {
    "add": add,
    "add_preserving_norm": add_preserving_norm,
    "clamp": clamp,
    "ablate": ablate,
}
SETS_PROJECTION = ("clamp", "ablate")
"""Operations that set a projection: they need a direction, and several directions must be orthogonal."""
