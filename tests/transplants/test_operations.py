"""Operations against NumPy and against what each of them promises."""

import numpy as np
import pytest
import torch

from contrans.transplants.operations import OPERATIONS, SETS_PROJECTION

HIDDEN = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0)) * 30
SHIFT = torch.randn(16, generator=torch.Generator().manual_seed(1))


def numpy_edit(operation: str, hidden: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """The operations once more, row by row in float64."""
    h, s = hidden.astype(np.float64), shift.astype(np.float64)
    out = np.empty_like(h)
    for at in np.ndindex(h.shape[:-1]):
        row, unit = h[at], s / np.sqrt((s**2).sum()) if s.any() else s
        if operation == "add":
            out[at] = row + s
        elif operation == "add_preserving_norm":
            out[at] = (row + s) / np.sqrt(((row + s) ** 2).sum()) * np.sqrt((row**2).sum())
        elif operation == "clamp":
            out[at] = row - row.dot(unit) * unit + s
        else:
            out[at] = row - row.dot(unit) * unit
    return out


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("factor", [1.0, -1.0, 40.0])
def test_equals_numpy_and_leaves_its_input_alone(operation, factor):
    before = HIDDEN.clone()
    got = OPERATIONS[operation](HIDDEN, factor * SHIFT)
    np.testing.assert_allclose(got, numpy_edit(operation, HIDDEN.numpy(), (factor * SHIFT).numpy()), atol=2e-5)
    assert torch.equal(HIDDEN, before)
    assert got.dtype == torch.float32


@pytest.mark.parametrize("operation", ["add", "add_preserving_norm"])
def test_a_shift_of_zero_is_the_identity(operation):
    assert torch.equal(OPERATIONS[operation](HIDDEN, torch.zeros(16)), HIDDEN)


def test_norms_stay_and_the_projection_grows():
    got = OPERATIONS["add_preserving_norm"](HIDDEN, 10 * SHIFT)
    torch.testing.assert_close(got.norm(dim=-1), HIDDEN.norm(dim=-1))
    assert bool((got @ SHIFT > HIDDEN @ SHIFT).all())


@pytest.mark.parametrize("factor", [2.0, -2.0])
def test_clamp_sets_the_projection_and_nothing_else(factor):
    unit = SHIFT / SHIFT.norm()
    got = OPERATIONS["clamp"](HIDDEN, factor * SHIFT)
    torch.testing.assert_close(got @ unit, torch.full((3, 5), factor * float(SHIFT.norm())), rtol=1e-4, atol=1e-4)
    across = HIDDEN - (HIDDEN @ unit)[..., None] * unit
    torch.testing.assert_close(got - (got @ unit)[..., None] * unit, across, rtol=1e-4, atol=1e-4)


def test_ablation_does_not_ask_for_length_or_sign():
    got = OPERATIONS["ablate"](HIDDEN, SHIFT)
    torch.testing.assert_close(got @ SHIFT, torch.zeros(3, 5), rtol=0, atol=1e-4)
    torch.testing.assert_close(OPERATIONS["ablate"](HIDDEN, -0.01 * SHIFT), got, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_zero_state_gives_finite_numbers(operation):
    assert bool(torch.isfinite(OPERATIONS[operation](torch.zeros(2, 16), SHIFT)).all())
    assert bool(torch.isfinite(OPERATIONS[operation](-SHIFT[None], SHIFT)).all())


@pytest.mark.parametrize("operation", SETS_PROJECTION)
def test_projections_are_exact_under_autocast(operation):
    with torch.autocast("cpu", torch.bfloat16):
        got = OPERATIONS[operation](HIDDEN, SHIFT)
    torch.testing.assert_close(got, OPERATIONS[operation](HIDDEN, SHIFT))
