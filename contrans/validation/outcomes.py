"""What was right on each item: kept beside the rows, so that versions can be compared on the same items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from contrans.errors import ContransError
from contrans.validation.shares import ConceptHits, by_item

FILE = "items.json"


@dataclass(frozen=True)
class Outcomes:
    """The effect of each arm on each item of a split.

    Attributes:
        effect: the protocol's metric that this is about, such as "logit_accuracy".
        items: a name for each item, equal where the item is.
        arms: per arm and concept float64 [items]: how right each item is, a share where an arm has several draws; NaN
            where the item does not count for the concept. Their mean over items is the effect.
    """

    effect: str
    items: tuple[str, ...]
    arms: Mapping[str, Mapping[str, np.ndarray]]

    @classmethod
    def of(cls, effect: str, items: Sequence[str], hits: Mapping[str, ConceptHits]) -> Outcomes:
        """From the hits of each arm, see `contrans.validation.rows`."""
        arms = {
            arm: {concept: by_item(hit, counts) for concept, (hit, counts) in of[effect].items()}
            for arm, of in hits.items()
        }
        return cls(effect, tuple(items), arms)

    def only(self, concept: str) -> Outcomes:
        """Those of one concept."""
        arms = {arm: {concept: by[concept]} for arm, by in self.arms.items() if concept in by}
        return Outcomes(self.effect, self.items, arms)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; what does not count is null."""
        arms = {
            arm: {c: [None if np.isnan(v) else round(float(v), 6) for v in values] for c, values in by.items()}
            for arm, by in self.arms.items()
        }
        return {"effect": self.effect, "items": list(self.items), "arms": arms}

    @classmethod
    def from_json(cls, found: Any) -> Outcomes:
        """The inverse of `to_json`.

        Raises:
            ContransError: it has another form.
        """
        try:
            items = tuple(map(str, found["items"]))
            arms = {
                str(arm): {
                    str(concept): np.array([np.nan if v is None else v for v in values], dtype=float)
                    for concept, values in by.items()
                }
                for arm, by in found["arms"].items()
            }
            if any(len(values) != len(items) for by in arms.values() for values in by.values()):
                raise ValueError
            return cls(str(found["effect"]), items, arms)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ContransError(
                f"This {FILE} does not hold the outcomes of items; take that of a validation which this version made."
            ) from error


def paired(before: Outcomes, after: Outcomes, arm: str, concept: str) -> tuple[np.ndarray, np.ndarray]:
    """How right the items that two validations share are in either, float64 [shared items] each.

    Args:
        before: of one validation.
        after: of the other.
        arm: the arm of both.
        concept: the concept of both.

    Raises:
        ContransError: they are about different metrics, have no item in common, or one of them lacks the arm.
    """
    if before.effect != after.effect:
        raise ContransError(
            f"One validation is about {before.effect} and the other about {after.effect}; compare two of one protocol."
        )
    try:
        first, second = (dict(zip(o.items, o.arms[arm][concept], strict=True)) for o in (before, after))
    except KeyError as error:
        raise ContransError(
            f"A validation has no outcomes of {arm} on {concept}; validate it with that arm."
        ) from error
    shared = [item for item in first if item in second and not np.isnan([first[item], second[item]]).any()]
    if not shared:
        raise ContransError("The two validations have no item in common; validate both on the same texts.")
    return np.array([first[i] for i in shared]), np.array([second[i] for i in shared])
