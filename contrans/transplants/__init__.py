"""How is it put in? Changing the residual stream along a direction while a model runs."""

from contrans.transplants.apply import Transplant, transplant
from contrans.transplants.bake import bake, bake_shifts
from contrans.transplants.compose import COMBINATIONS, combine, cosine_matrix, gram_schmidt, loewdin, solve_readout
from contrans.transplants.operations import OPERATIONS
from contrans.transplants.scope import SCOPES

__all__ = [
    "COMBINATIONS",
    "OPERATIONS",
    "SCOPES",
    "Transplant",
    "bake",
    "bake_shifts",
    "combine",
    "cosine_matrix",
    "gram_schmidt",
    "loewdin",
    "solve_readout",
    "transplant",
]
