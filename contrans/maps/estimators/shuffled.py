"""A control: the ridge map of rows that do not belong together."""

from dataclasses import replace

import torch

from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.ridge import RHO_GRID, penalised, r2_of_lambdas
from contrans.maps.paired import PairedStates


def shuffled(paired: PairedStates) -> Fit:
    """Ridge on target rows in a random order, with the λ that the true pairing chooses.

    It has all of the states' statistics but not which belongs to which, so what it transfers is no concept.
    With a λ of its own it would shrink to zero and be no control of equal strength.
    """
    rho = RHO_GRID[int(torch.argmax(r2_of_lambdas(paired)))]
    order = torch.randperm(len(paired.y), generator=torch.Generator().manual_seed(paired.seed + 1))
    # the source side is the same, and so is its spectrum
    mixed = replace(paired, y=paired.y[order], moments=None)
    return penalised(mixed, rho, {"heldout_r2": float(r2_of_lambdas(mixed, (rho,))[0])})
