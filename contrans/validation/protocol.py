"""What every protocol offers: items, a score of all of them under a shift, and how right each answer is."""

from typing import Any, Protocol

import numpy as np
import torch

Hits = dict[str, tuple[np.ndarray, np.ndarray]]
"""Per metric: float64 [items], how right each item is (0 to 1, or any real), and bool [items], which items count.

Or int [items], 0 for those that do not count and 1, 2, … for groups whose means are added.
"""


def graded_metric(protocol: "ItemProtocol") -> str:
    """The metric that arms are ranked by where the effect may be equal: its attribute `graded`, or else the effect."""
    return str(getattr(protocol, "graded", protocol.effect))


class ItemProtocol(Protocol):
    """Fixed items that one model answers under shifts of one block's output.

    Attributes:
        name: such as "emotion"; it stands in every row.
        effect: the metric that doses are chosen by and that gain recovered is about; more of it is more of the concept.
        concepts: the concepts whose shifts can be judged, one or more.
        n_items: items.
        n_tokens: tokens that go through the model for one scoring, for progress bars.
    """

    name: str
    effect: str
    concepts: list[str]
    n_tokens: int

    @property
    def n_items(self) -> int:
        """Number of items."""
        ...

    def score(self, shift: torch.Tensor | None) -> Any:
        """All that is needed to judge the answers under a shift [d] of the block's output; None is unsteered."""
        ...

    def hits(self, scores: Any, concept: str) -> Hits:
        """How right the answers are if this concept is the one that was put in, for every metric."""
        ...
