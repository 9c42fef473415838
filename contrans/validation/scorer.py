"""Scores of a protocol's items by arm, concept and dose: each shift once, and many at once where the protocol can."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from contrans.validation.arms import Directions, wrong_concepts
from contrans.validation.protocol import Hits, ItemProtocol

Tick = Callable[[int], None]
"""Called with the number of tokens that went through the model."""


class Scorer:
    """Scores of a protocol by shift, since a wrong concept's shift is another concept's own."""

    def __init__(self, protocol: ItemProtocol, directions: Directions, tick: Tick) -> None:
        self._protocol, self._directions, self._tick = protocol, directions, tick
        self._seen: dict[tuple[object, ...], Any] = {}

    def __call__(self, arm: str, concept: str, dose: float | None, draw: int = 0) -> Any:
        """What the model answers to every item under an arm's shift; dose None is unsteered."""
        key = self._key(arm, concept, dose, draw)
        if key not in self._seen:
            self._score({key: self._shift(arm, concept, dose, draw)})
        return self._seen[key]

    def hits(self, arm: str, dose: float | None, draw: int = 0) -> dict[str, Hits]:
        """How right every item is, by concept."""
        return self.hits_of_draws(arm, dose, [draw])[0]

    def hits_of_draws(
        self, arm: str, dose: float | Sequence[float] | None, draws: Sequence[int]
    ) -> list[dict[str, Hits]]:
        """The same for each of many draws, at one dose or each at its own.

        All that was not scored before goes through the model together.
        """
        concepts = self._directions.concepts
        each = list(zip(draws, dose if isinstance(dose, Sequence) else [dose] * len(draws), strict=True))
        wanted = {self._key(arm, c, at, d): (arm, c, at, d) for d, at in each for c in concepts}
        self._score({key: self._shift(*of) for key, of in wanted.items() if key not in self._seen})
        return [{c: self._protocol.hits(self(arm, c, at, d), c) for c in concepts} for d, at in each]

    def _key(self, arm: str, concept: str, dose: float | None, draw: int) -> tuple[object, ...]:
        if dose is None:
            return ("unsteered",)
        if arm == "random":
            return (arm, dose, draw)
        if arm == "wrong_concept":
            return ("transplanted", wrong_concepts(self._directions.concepts)[concept], dose, 0)
        return (arm, concept, dose, draw)

    def _shift(self, arm: str, concept: str, dose: float | None, draw: int) -> torch.Tensor | None:
        return None if dose is None else self._directions.shift(arm, concept, dose, draw)

    def _score(self, shifts: Mapping[tuple[object, ...], torch.Tensor | None]) -> None:
        # protocols that generate have no pass to share
        together = getattr(self._protocol, "score_many", None)
        if together is not None and len(shifts) > 1:
            for key, scores in zip(shifts, together(list(shifts.values())), strict=True):
                self._seen[key] = scores
                self._tick(self._protocol.n_tokens)
            return
        for key, shift in shifts.items():
            self._seen[key] = self._protocol.score(shift)
            self._tick(self._protocol.n_tokens)
