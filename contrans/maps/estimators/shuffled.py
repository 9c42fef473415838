"""A control: the ridge map of rows that do not belong together."""

from dataclasses import replace

import torch

from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.ridge import RHO_GRID, held_out_r2_of_lambdas, solve
from contrans.maps.paired import PairedStates


def shuffled(paired: PairedStates) -> Fit:
    """Ridge on target rows in a random order, with the λ that the true pairing chooses.

    It has all of the states' statistics but not which belongs to which, so what it transfers is no concept.
    With a λ of its own it would shrink to zero and be no control of equal strength.
    """
    rhos = RHO_GRID
    rho = rhos[int(torch.argmax(held_out_r2_of_lambdas(paired.train, paired.held, rhos)))]
    order = torch.randperm(len(paired.y), generator=torch.Generator().manual_seed(paired.seed + 1))
    mixed = replace(paired, y=paired.y[order])
    weight, bias, retained, lam = solve(mixed.train.merge(mixed.held), rho)
    r2 = float(held_out_r2_of_lambdas(mixed.train, mixed.held, (rho,))[0])
    return Fit(
        weight,
        bias,
        retained,
        {"lambda": lam, "rho": rho, "heldout_r2": r2, "n": len(paired.x), "n_heldout": mixed.held.n},
    )
