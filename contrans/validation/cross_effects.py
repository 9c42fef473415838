"""What does a concept do to the others? Concept i put in, concept j measured, for all pairs on the same items."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from math import isfinite
from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text

from contrans.errors import FitError, SpecError
from contrans.transplants.compose import combine as combined
from contrans.validation.protocol import ItemProtocol
from contrans.validation.shares import mean_share, once
from contrans.validation.statistics import cluster_bootstrap
from contrans.validation.wording import shown

Progress = Callable[[int], None]
"""Called after every scoring with the number of tokens that went through the model."""

_Hit = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class CrossEffect:
    """How far one shift moves the measure of one concept.

    Attributes:
        concept_in: what was put in; two concepts at once are joined by " + ".
        concept_measured: the concept whose metric this is.
        value: the metric less that of the unsteered model on the same items.
        low: lower end of its 95 % interval; None where resamples have no value.
        high: upper end.
        n: items behind it.
    """

    concept_in: str
    concept_measured: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class CrossEffects:
    """The cross-effect matrix, with intervals.

    Attributes:
        protocol: whose items were scored.
        metric: the protocol's effect metric.
        put_in: rows of the matrix: single concepts, then pairs if they were asked for.
        measured: columns of the matrix.
        doses: dose of each concept put in, in residual norms.
        combination: how two concepts became one shift; None without pairs.
        effects: one per cell, row by row.
    """

    protocol: str
    metric: str
    put_in: tuple[str, ...]
    measured: tuple[str, ...]
    doses: dict[str, float]
    combination: str | None
    effects: tuple[CrossEffect, ...]

    def matrix(self, part: str = "value") -> np.ndarray:
        """Float64 [put in, measured]: "value", "low" or "high" of every cell; NaN where there is none."""
        flat = [getattr(e, part) for e in self.effects]
        return np.array(flat, dtype=float).reshape(len(self.put_in), len(self.measured))

    def rows(self) -> list[dict[str, Any]]:
        """One JSON object per cell."""
        return [asdict(e) for e in self.effects]

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "protocol": self.protocol,
            "metric": self.metric,
            "doses": self.doses,
            "combination": self.combination,
            "rows": self.rows(),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "CrossEffects":
        """Reads what `to_json` gave."""
        effects = tuple(CrossEffect(**row) for row in found["rows"])
        put_in, measured = (
            tuple(dict.fromkeys(getattr(e, f"concept_{which}") for e in effects)) for which in ("in", "measured")
        )
        return cls(found["protocol"], found["metric"], put_in, measured, found["doses"], found["combination"], effects)

    def table(self) -> Table:
        """A rich table: what was put in downwards, what was measured across; bold where the interval leaves out 0."""
        table = Table(title=Text(f"{self.protocol}: change of {self.metric} against unsteered"), title_justify="left")
        for i, head in enumerate(("put in", *self.measured)):
            table.add_column(Text(head), justify="right" if i else "left")
        for row in self._lines():
            cells = [Text(shown(e.value, e.low, e.high), style="bold" if _beyond_chance(e) else "") for e in row]
            table.add_row(Text(row[0].concept_in), *cells)
        return table

    def figure(self) -> bytes:
        """The matrix as a heat map, PNG."""
        from contrans.report.heatmap import heatmap

        return heatmap(
            self.matrix(),
            self.put_in,
            self.measured,
            title=f"{self.protocol}: concept put in (rows), concept measured (columns)",
            unit=f"change of {self.metric.replace('_', ' ')} against unsteered",
            low=self.matrix("low"),
            high=self.matrix("high"),
        )

    def _lines(self) -> Iterator[tuple[CrossEffect, ...]]:
        width = len(self.measured)
        for i in range(len(self.put_in)):
            yield self.effects[i * width : (i + 1) * width]


def cross_effects(
    protocol: ItemProtocol,
    directions: Mapping[str, torch.Tensor],
    doses: float | Mapping[str, float],
    *,
    residual_norm: float,
    pairs: bool = False,
    combine: str = "sum",
    draws: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> CrossEffects:
    """Puts every concept in, measures all of them, and compares with the unsteered model on the same items.

    The diagonal is what a concept does to its own metric, the rest its side effects. Intervals resample items, the
    same for the steered and the unsteered model, so the differences are paired.

    Args:
        protocol: the items, and which concepts are measured.
        directions: by concept, a direction [d] in the model's hidden space at the protocol's block, of any length. A
            concept that the protocol does not measure may be put in too.
        doses: size of each shift in residual norms; one for all, or one per concept.
        residual_norm: median norm of the residual stream at the block.
        pairs: whether any two concepts are put in at once too.
        combine: how two directions become one shift; see `contrans.transplants.compose.parts`.
        draws: resamples behind an interval.
        seed: of the resampling.
        progress: called after every scoring.

    Raises:
        SpecError: no directions, a dose is missing, or an unknown combination.
        FitError: a direction is zero, two are too alike to be combined, or no item counts for a concept.
    """
    names = list(directions)
    if not names:
        raise SpecError("Cross-effects need at least one direction to put in; give concepts and their directions.")
    sizes = dict(doses) if isinstance(doses, Mapping) else dict.fromkeys(names, float(doses))
    if missing := [name for name in names if name not in sizes]:
        raise SpecError(f"There is no dose for {missing[0]!r}; give one dose for all concepts, or one each.")
    together = [(name,) for name in names] + (list(combinations(names, 2)) if pairs else [])
    # before the model runs: what cannot be combined fails at once
    shifts = {
        " + ".join(group): combined(
            torch.stack([directions[n] for n in group]), [sizes[n] for n in group], combine, residual_norm
        )
        for group in together
    }

    def measure(shift: torch.Tensor | None) -> dict[str, _Hit]:
        scores = protocol.score(shift)
        if progress is not None:
            progress(protocol.n_tokens)
        return {concept: protocol.hits(scores, concept)[protocol.effect] for concept in protocol.concepts}

    before = measure(None)
    effects: list[CrossEffect] = []
    for name, shift in shifts.items():
        after = measure(shift)
        effects += [
            _compared(name, concept, after[concept], before[concept], draws=draws, seed=seed)
            for concept in protocol.concepts
        ]
    return CrossEffects(
        protocol.name,
        protocol.effect,
        tuple(shifts),
        tuple(protocol.concepts),
        {n: sizes[n] for n in names},
        combine if pairs else None,
        tuple(effects),
    )


def _compared(
    concept_in: str, concept_measured: str, after: _Hit, before: _Hit, *, draws: int, seed: int
) -> CrossEffect:
    n = int(np.count_nonzero(after[1]))
    if n == 0 or not before[1].any():
        raise FitError(f"No item counts for {concept_measured!r}, so nothing can be measured; give items for it.")

    def change(weights: np.ndarray) -> np.ndarray:
        return mean_share([after], weights) - mean_share([before], weights)

    n_items = len(after[1])
    low, high = cluster_bootstrap(change, n_items, draws=draws, seed=seed)
    ends = (low, high) if isfinite(low) and isfinite(high) else (None, None)
    return CrossEffect(concept_in, concept_measured, change(once(n_items)).item(), *ends, n)


def _beyond_chance(effect: CrossEffect) -> bool:
    return effect.low is not None and effect.high is not None and not effect.low <= 0 <= effect.high
