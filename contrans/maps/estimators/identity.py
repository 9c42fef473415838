"""A control: no map at all, for models whose hidden spaces are as wide as each other."""

import torch

from contrans.errors import FitError
from contrans.maps.estimators.fit import Fit, held_out_r2
from contrans.maps.paired import PairedStates


def identity(paired: PairedStates) -> Fit:
    """W = I and b = ȳ − x̄, for a target that descends from the source (a fine-tuned copy, say).

    Raises:
        FitError: the two hidden sizes differ.
    """
    ds, dt = paired.x.shape[1], paired.y.shape[1]
    if ds != dt:
        raise FitError(f"The identity map needs equal hidden sizes, not {ds} and {dt}; use ridge.")
    weight = torch.eye(ds, dtype=torch.float64)
    bias = paired.train.mean_y - paired.train.mean_x
    held = paired.is_held_out
    r2 = held_out_r2(weight, bias, paired.x[held], paired.y[held], paired.train.mean_y)
    return Fit(
        weight,
        bias,
        weight,
        {"lambda": 0.0, "rho": 0.0, "heldout_r2": r2, "n": len(paired.x), "n_heldout": int(held.sum())},
    )
