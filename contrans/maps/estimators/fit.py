"""What every map estimator returns."""

from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Fit:
    """A fitted affine map.

    Attributes:
        weight: W, float64 [ds, dt].
        bias: b, float64 [dt].
        retained: float64 [ds, ds], what regularisation leaves of a source direction; the identity without any.
        info: JSON facts: λ, ρ, held-out R², rows.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    retained: torch.Tensor
    info: dict[str, float | int | None] = field(default_factory=dict)


def held_out_r2(
    weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, y: torch.Tensor, mean: torch.Tensor
) -> float:
    """1 − Σ‖y − (xW + b)‖² / Σ‖y − mean‖², where mean [dt] is that of the rows fitted on."""
    error = y.double() - (x.double() @ weight + bias)
    return 1 - float(error.square().sum() / (y.double() - mean).square().sum())
