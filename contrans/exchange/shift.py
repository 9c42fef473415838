"""What a foreign tool is to add: per block one vector in the units of the residual stream, the dose folded in."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from contrans.concepts.vector import ConceptVector
from contrans.errors import SpecError
from contrans.models import ModelRecord
from contrans.transplants.apply import shift_of

EVERYWHERE = ("all", "with_bos")
"""Scopes that a file can stand for. Foreign tools know no BOS: what they add, they add at every token."""


@dataclass(frozen=True)
class Shift:
    """A transplant as a constant that is added to the outputs of blocks.

    Attributes:
        concept: such as "anger".
        model: the model that it is for.
        blocks: per block, counted from 0, a float32 tensor [d] in the units of the residual stream.
        dose: length of each shift in median residual norms; it is in the tensors already.
        origin: what it was made from, such as "anger/smollm2/gemma@3"; None if that has no name.
    """

    concept: str
    model: ModelRecord
    blocks: Mapping[int, torch.Tensor]
    dose: float
    origin: str | None = None

    @property
    def described(self) -> str:
        """One line on what it is, for a file's own description."""
        made = f" from {self.origin}" if self.origin else ""
        return f"{self.concept} at dose {self.dose:g} for {self.model.reference}, written by contrans{made}"


def exported_shift(
    vector: ConceptVector,
    *,
    dose: float,
    block: int | None = None,
    operation: str = "add",
    positions: str = "all",
    origin: str | None = None,
) -> Shift:
    """The shift of a transplant, where a file can say what the transplant does: dose · r · v/‖v‖ at a block.

    A transplant with positions="all" spares BOS, and the tools that read these files do not: they compute
    positions="with_bos". The two differ by what a shift of that one token does, which is little where BOS has the
    massive state of an attention sink (see `contrans.bake`).

    Args:
        vector: in the model's hidden space.
        dose: size of the shift in residual norms; negative for the opposite.
        block: which of the vector's blocks; needed if it has more than one.
        operation: of the transplant.
        positions: of the transplant.
        origin: name of what it was made from.

    Raises:
        SpecError: the operation or the positions are more than a constant that is added everywhere, or the dose is
            zero or not finite.
        BlockError: no such block, or several and none named.
    """
    if operation != "add":
        raise SpecError(
            f'A file holds a constant that is added, and "{operation}" depends on the hidden state; export a '
            f'transplant with operation="add", or use `contrans.transplant`.'
        )
    if positions not in EVERYWHERE:
        raise SpecError(
            f'A file cannot say at which tokens it acts, and this transplant acts at positions="{positions}" only; '
            f'export one with positions="all", or use `contrans.transplant`.'
        )
    if not abs(dose) > 0 or dose in (float("inf"), float("-inf")):
        raise SpecError(f"A dose of {dose:g} makes no shift to export; give a number such as 0.2 with --dose.")
    at = vector.only_block() if block is None else block
    return Shift(vector.concept, vector.model, {at: shift_of(vector, dose, at)}, float(dose), origin)
