"""The rows of one protocol, looked up by what they are about; what arms, metrics and curves they hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from contrans.errors import ArtifactError

if TYPE_CHECKING:  # results are shown without torch, which rows are made with
    from contrans.validation.rows import Row

COSTS = ("kl", "perplexity_ratio")
"""Metrics of what a shift costs on generic text."""
SIDE_EFFECT_PROTOCOLS = ("perplexity", "capability")
"""Protocols that measure what a transplant must leave alone; their effect is to stay where it is."""
MEAN = "all"
"""The concept of a row that is a mean over concepts."""

OF_THE_EFFECT = ("gain", "false_alarms", "gain_recovered")
"""Metrics that say something of the protocol's effect, whichever that is."""
_DERIVED = (*OF_THE_EFFECT, "selectivity_gain", "logit_accuracy_gain")
_FIELDS = ("concept", "protocol", "split", "arm", "metric", "dose", "value", "low", "high", "n")
_BORROWED = {"wrong_concept": ("transplanted",)}


def is_p_value(metric: str) -> bool:
    """Whether a metric is a p-value, as it is or adjusted."""
    return metric.endswith(("_p", "_p_holm"))


@dataclass(frozen=True)
class RowTable:
    """Rows of one protocol.

    Attributes:
        rows: as JSON objects, see `contrans.validation.rows.Row`.
        protocol: whose they are.
        effect: the metric that the protocol is about; more of it is more of the concept.
    """

    rows: tuple[Mapping[str, Any], ...]
    protocol: str
    effect: str
    _index: dict[tuple[str, str, str, str], Mapping[str, Any]] = field(repr=False, compare=False)

    @classmethod
    def of(
        cls, rows: "Iterable[Row | Mapping[str, Any]]", *, protocol: str | None = None, effect: str | None = None
    ) -> "RowTable":
        """The rows of one protocol.

        Args:
            rows: rows of one or more protocols.
            protocol: the one to take; needed where there are several.
            effect: its effect; by default the first metric of the rows that is neither a p-value nor a cost nor
                made from others, since protocols name their effect first.

        Raises:
            ArtifactError: there are no such rows, a row lacks a key, or no row is of the effect.
        """
        objects: list[dict[str, Any]] = [dict(row) if isinstance(row, Mapping) else row.to_json() for row in rows]
        lacking = sorted({key for row in objects for key in _FIELDS if key not in row})
        if lacking:
            raise ArtifactError(f"A row of the results lacks {', '.join(lacking)}; give rows as the run wrote them.")
        there = list(dict.fromkeys(row["protocol"] for row in objects))
        if protocol is None and len(there) > 1:
            raise ArtifactError(f"The rows are of the protocols {', '.join(there)}; name the one that is meant.")
        name = protocol or "".join(there)
        chosen = tuple(row for row in objects if row["protocol"] == name)
        metrics = [m for m in _metrics(chosen) if m not in (*COSTS, *_DERIVED) and not is_p_value(m)]
        if not metrics or (effect or metrics[0]) not in metrics:
            wanted = f" of {effect}" if effect else ""
            raise ArtifactError(f"There are no rows{wanted} for the protocol {name!r}; there are {there or 'none'}.")
        index: dict[tuple[str, str, str, str], Mapping[str, Any]] = {}
        for row in chosen:
            index.setdefault((row["concept"], row["arm"], row["metric"], row["split"]), row)
        return cls(chosen, name, effect or metrics[0], index)

    def find(self, concept: str, arm: str, metric: str, *, split: str = "test") -> Mapping[str, Any] | None:
        """The row of one number, or None; of a curve its first point."""
        return self._index.get((concept, arm, metric, split))

    def arms(self, split: str = "test") -> list[str]:
        """Arms that were scored on a split, in order."""
        return list(dict.fromkeys(r["arm"] for r in self.rows if r["split"] == split and r["metric"] == self.effect))

    def concepts(self) -> list[str]:
        """Concepts that were tested, without the mean over them."""
        found = dict.fromkeys(r["concept"] for r in self.rows if r["split"] == "test" and r["metric"] == self.effect)
        return [c for c in found if c != MEAN]

    def headlines(self) -> list[str]:
        """What the main table is about: the mean over concepts where there is one, else each concept."""
        mean = any(r["concept"] == MEAN and r["metric"] == self.effect and r["split"] == "test" for r in self.rows)
        return [MEAN] if mean else self.concepts()

    def metrics(self) -> list[str]:
        """Metrics of the test items, the effect first, without costs, p-values and what is made from others."""
        found = _metrics(r for r in self.rows if r["split"] == "test")
        kept = [m for m in found if m not in (*COSTS, *_DERIVED, self.effect) and not is_p_value(m)]
        return [self.effect, *kept]

    def curve(self, arm: str, *, concept: str = MEAN, metric: str | None = None) -> list[Mapping[str, Any]]:
        """An arm's points on dev in the order of their doses."""
        metric = metric or self.effect
        found = [
            r for r in self.rows if (r["concept"], r["arm"], r["metric"], r["split"]) == (concept, arm, metric, "dev")
        ]
        return sorted(found, key=lambda r: r["dose"] or 0.0)

    def cost(
        self, arm: str, dose: float | None, *, concept: str = MEAN, metric: str = "kl", split: str = "generic"
    ) -> Mapping[str, Any] | None:
        """What an arm costs on generic text at a dose, or None.

        The mean over concepts stands in for a concept that was not measured by itself, and the transplants for the
        arm of wrong concepts, which puts in the very same shifts.

        Args:
            arm: the arm.
            dose: the dose; nothing that is not shifted has a cost.
            concept: the concept.
            metric: one of `COSTS`.
            split: whose row to take where several splits have one.
        """
        if dose is None:
            return None
        for name in (arm, *_BORROWED.get(arm, ())):
            for about in (concept, MEAN):
                found = [
                    row
                    for row in self.rows
                    if (row["arm"], row["concept"], row["metric"]) == (name, about, metric)
                    and row["dose"] is not None
                    and abs(row["dose"] - dose) <= 1e-9 * abs(dose)
                ]
                if found:
                    return next((row for row in found if row["split"] == split), found[0])
        return None

    def curve_by_kl(self, arm: str, *, concept: str = MEAN) -> list[tuple[float, float, float]]:
        """Dose, KL and effect of each point of an arm's dev curve that has a KL, by ascending dose."""
        points = []
        for row in self.curve(arm, concept=concept):
            cost = self.cost(arm, row["dose"], concept=concept, split="dev")
            if cost is not None:
                points.append((row["dose"], max(cost["value"], 0.0), row["value"]))
        return points


def _metrics(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["metric"] for row in rows))
