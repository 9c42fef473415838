"""Several concepts at once: from k directions at one block to one shift. Pure functions on a matrix [k, d].

All results but a finished shift are in float64: a Gram matrix squares what precision there is.
"""

from collections.abc import Callable, Sequence

import torch

from contrans.errors import FitError, SpecError

MIN_INDEPENDENCE = 0.05
"""Smallest singular value of unit directions that are told apart; for two of them, a cosine of ± 0.9975."""


def cosine_matrix(directions: torch.Tensor) -> torch.Tensor:
    """Cosine of every direction with every other: float64 [k, k].

    Args:
        directions: [k, d], of any length but zero.

    Raises:
        FitError: a direction is zero or not finite.
    """
    unit, _ = _unit(directions)
    return unit @ unit.T


def gram_schmidt(directions: torch.Tensor) -> torch.Tensor:
    """Orthogonal directions [k, d]: the first as it was, each later one without its part along those before it.

    The order matters: the first concept wins. Every direction keeps its own length.

    Args:
        directions: [k, d].

    Raises:
        FitError: a direction is zero, or they are (nearly) dependent.
    """
    unit, lengths = _independent(directions)
    q, r = torch.linalg.qr(unit.T)
    # LAPACK leaves the sign of every column open; a concept must not turn into its opposite
    return (q * r.diagonal().sign()).T * lengths


def loewdin(directions: torch.Tensor) -> torch.Tensor:
    """Orthogonal directions [k, d] that treat all concepts alike: (U Uᵀ)^{−1/2} U, each with its own length.

    Of all orthonormal sets it is the nearest to the unit directions U in the sum of squared distances (Löwdin 1950;
    Carlson & Keller 1957), so it does not depend on the order.

    Args:
        directions: [k, d].

    Raises:
        FitError: a direction is zero, or they are (nearly) dependent.
    """
    unit, lengths = _independent(directions)
    left, _, right = torch.linalg.svd(unit, full_matrices=False)
    return left @ right * lengths


def solve_readout(
    directions: torch.Tensor | None, readouts: torch.Tensor, wanted: torch.Tensor | Sequence[float]
) -> torch.Tensor:
    """The shortest shift [d] whose projection onto each read-out direction is what is wanted.

    argmin ‖x‖ subject to x·r_j/‖r_j‖ = w_j, with x in the span of the directions: x = Qᵀ (R Qᵀ)⁺ w for an orthonormal
    basis Q of that span and unit read-outs R.

    Args:
        directions: [k, d], what the shift may be made of; any direction if None.
        readouts: [m, d], of any length but zero: what each concept is read by.
        wanted: m projections, in units of the hidden state.

    Raises:
        FitError: the directions are (nearly) dependent, or no shift in their span moves the read-outs as wanted.
        SpecError: there is not one wanted value per read-out.
    """
    unit, _ = _unit(readouts)
    target = torch.as_tensor(wanted, dtype=torch.float64, device=unit.device)
    if target.shape != (len(unit),):
        raise SpecError(f"{len(unit)} read-outs need {len(unit)} wanted values, not {tuple(target.shape)}.")
    if directions is None:
        _check_independent(unit)
        return torch.linalg.pinv(unit) @ target
    spanning, _ = _independent(directions)
    basis = torch.linalg.qr(spanning.T).Q
    seen = unit @ basis
    values = torch.linalg.svdvals(seen)
    if len(unit) > len(spanning) or float(values[-1]) < MIN_INDEPENDENCE:
        raise FitError(
            f"No shift made of these {len(spanning)} directions moves the {len(unit)} read-outs one by one; leave out "
            f"a read-out, or let the shift be any direction."
        )
    return basis @ torch.linalg.pinv(seen) @ target


_BASES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "sum": lambda unit: unit,
    "loewdin": loewdin,
    "gram_schmidt": gram_schmidt,
}
COMBINATIONS = (*_BASES, "solve")
ORTHOGONAL = ("loewdin", "gram_schmidt")
"""Combinations whose parts are orthogonal."""


def parts(
    directions: torch.Tensor, doses: Sequence[float], method: str, residual_norm: float | Sequence[float]
) -> torch.Tensor:
    """What each concept gives to the shift: float64 [k, d], whose sum is the shift.

    "sum" adds dose · r · v/‖v‖ of each; "loewdin" and "gram_schmidt" do so after making the directions
    orthogonal; "solve" is the shortest shift whose projection onto every v/‖v‖ is dose · r, so that concepts
    that share a direction are not counted twice.

    Args:
        directions: [k, d].
        doses: k doses, in residual norms; negative for the opposite.
        method: one of `COMBINATIONS`.
        residual_norm: r, one for all or one per direction.

    Raises:
        SpecError: the method is not known, or the numbers of doses, norms and directions differ.
        FitError: a direction is zero, or they are (nearly) dependent and the method needs them not to be.
    """
    check_method(method)
    unit, _ = _unit(directions)
    norms = [residual_norm] * len(unit) if isinstance(residual_norm, int | float) else list(residual_norm)
    if not len(doses) == len(norms) == len(unit):
        raise SpecError(f"{len(unit)} directions came with {len(doses)} doses and {len(norms)} norms; give one each.")
    lengths = torch.tensor([d * r for d, r in zip(doses, norms, strict=True)], dtype=torch.float64, device=unit.device)
    if method == "solve":
        _check_independent(unit)
        return unit * torch.linalg.solve(unit @ unit.T, lengths)[:, None]
    return _BASES[method](unit) * lengths[:, None]


def combine(
    directions: torch.Tensor,
    doses: Sequence[float],
    method: str,
    residual_norm: float | Sequence[float],
    *,
    target_length: float | None = None,
) -> torch.Tensor:
    """One shift [d], float32, of several concepts at one block.

    Args:
        directions: [k, d].
        doses: k doses, in residual norms; negative for the opposite.
        method: "sum", "loewdin", "gram_schmidt" or "solve"; see `parts`.
        residual_norm: r, one for all or one per direction.
        target_length: length of the whole shift in hidden-state units, so that several concepts change no more than
            one does; as it comes if None.

    Raises:
        SpecError: the method is not known, or the numbers of doses, norms and directions differ.
        FitError: as in `parts`, or the concepts cancel and a length is asked for.
    """
    given = parts(directions, doses, method, residual_norm)
    shift = given.sum(0)
    if target_length is not None:
        length = float(shift.norm())
        if length <= 1e-9 * float(given.norm()):
            raise FitError("These concepts cancel at these doses, so their shift has no direction; change a dose.")
        shift = shift * (target_length / length)
    return shift.float()


def check_method(method: str) -> None:
    """Refuses a combination that does not exist.

    Raises:
        SpecError: the method is not one of `COMBINATIONS`.
    """
    if method not in COMBINATIONS:
        raise SpecError(f"Combination {method!r} is not known; use one of {', '.join(COMBINATIONS)}.")


def _unit(directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit directions [k, d] and their lengths [k, 1], in float64."""
    rows = directions.detach().double()
    if rows.ndim != 2 or len(rows) == 0:
        raise FitError(f"Directions come as a matrix [k, d] with at least one row, not {tuple(rows.shape)}.")
    lengths = rows.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(lengths).all()) or float(lengths.min()) == 0:
        raise FitError("A direction is zero or not finite; refine or map that vector again.")
    return rows / lengths, lengths


def _independent(directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    unit, lengths = _unit(directions)
    _check_independent(unit)
    return unit, lengths


def _check_independent(unit: torch.Tensor) -> None:
    k, d = unit.shape
    if k <= d and float(torch.linalg.svdvals(unit)[-1]) >= MIN_INDEPENDENCE:
        return
    cosines = (unit @ unit.T - torch.eye(k, dtype=unit.dtype, device=unit.device)).abs()
    first, second = divmod(int(cosines.argmax()), k)
    raise FitError(
        f"These {k} directions are nearly dependent (directions {first} and {second} have a cosine of "
        f"{float(unit[first] @ unit[second]):.4f}), so they cannot be told apart; leave one out, or add them up "
        f'with "sum".'
    )
