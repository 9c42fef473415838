"""Rows of two models that belong together, with the documents they come from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from contrans.errors import FitError, StateError
from contrans.hashing import digest
from contrans.states.moments import Moments


@dataclass(frozen=True)
class PairedStates:
    """Paired states of one block pair.

    Attributes:
        x: source states, float32 [n, ds].
        y: target states, float32 [n, dt].
        documents: the document of each row; rows of one document never stand on both sides of a split.
        held_out: share of the documents that λ is chosen and R² is reported on.
        seed: of the split.
    """

    x: torch.Tensor
    y: torch.Tensor
    documents: Sequence[str]
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.y) == len(self.documents):
            raise StateError(
                f"Paired states need equally many rows and documents, not {len(self.x)}, {len(self.y)} and "
                f"{len(self.documents)}."
            )

    @cached_property
    def is_held_out(self) -> torch.Tensor:
        """Bool [n]: rows of held-out documents.

        Raises:
            FitError: there are fewer than five documents.
        """
        chosen = held_out_documents(self.documents, self.held_out, self.seed)
        return torch.tensor([d in chosen for d in self.documents])

    @cached_property
    def train(self) -> Moments:
        """Moments of the rows that are not held out."""
        keep = ~self.is_held_out
        return Moments.of(self.x[keep], self.y[keep])

    @cached_property
    def held(self) -> Moments:
        """Moments of the held-out rows."""
        return Moments.of(self.x[self.is_held_out], self.y[self.is_held_out])


def held_out_documents(documents: Iterable[str], share: float, seed: int) -> set[str]:
    """The documents that λ is chosen on: decided by their hashes, so that their order does not matter.

    Raises:
        FitError: there are fewer than five documents.
    """
    names = sorted(set(documents))
    if len(names) < 5:
        raise FitError(
            f"A map needs texts from at least 5 documents to hold some out, not {len(names)}; give more texts."
        )
    ranked = sorted(names, key=lambda name: digest([seed, name]))
    return set(ranked[: min(max(1, round(share * len(names))), len(names) - 1)])
