"""Is an arm's effect more than that of the unsteered model, or of controls drawn many times? And that in words."""

from dataclasses import asdict, dataclass
from typing import Any

from contrans.validation.row_table import MEAN, RowTable
from contrans.validation.statistics import holm
from contrans.validation.wording import p_value

LEVEL = 0.05
DRAWN = {"random": "random_p", "shuffled_map": "shuffled_p"}
"""Controls of many draws, and the metric under which an arm's p-value against them stands."""


@dataclass(frozen=True)
class Comparison:
    """An arm against a reference, in the protocol's effect.

    Attributes:
        concept: the concept, or "all" for the mean over concepts.
        arm: what was added.
        against: "unsteered", or a control of many draws.
        change: the arm's effect minus the reference's; None where the reference was not scored.
        p: p-value, where there is one.
        p_holm: the same, adjusted over all concepts of the arm.
        significant: at 5 %, by `p_holm`, else by the paired interval of the gain, else by intervals that do not
            overlap; None where there is nothing to tell it from, or so few draws that no arm could be told from them.
    """

    concept: str
    arm: str
    against: str
    change: float | None
    p: float | None
    p_holm: float | None
    significant: bool | None

    @property
    def higher(self) -> bool:
        """Whether the arm has significantly more of the effect."""
        return bool(self.significant) and (self.change is None or self.change > 0)

    @property
    def words(self) -> str:
        """Such as "higher (p < 0.001)", "not significant (p = 0.21)", "too few draws (p = 0.24)" or "no interval"."""
        if self.significant is None:
            return "no interval" if self.p_holm is None else f"too few draws ({p_value(self.p_holm)})"
        verdict = "not significant"
        if self.significant:
            verdict = "higher" if self.higher else "lower"
        return verdict if self.p_holm is None else f"{verdict} ({p_value(self.p_holm)})"

    def to_json(self) -> dict[str, Any]:
        """The comparison as a JSON object, with its words."""
        return {**asdict(self), "words": self.words}


def comparisons(table: RowTable, arm: str, *, against: str = "unsteered") -> list[Comparison]:
    """An arm against a reference for every concept, and for the mean over them.

    P-values (`mcnemar_p` against the unsteered model, those of `DRAWN` against its controls) are adjusted by Holm over
    the concepts; the mean over concepts is one claim by itself and is not part of that family.

    Args:
        table: the rows.
        arm: the arm.
        against: "unsteered" or a key of `DRAWN`.

    Returns:
        One comparison per concept that the arm was scored on, the mean over concepts first.
    """
    concepts = [c for c in (MEAN, *table.concepts()) if table.find(c, arm, table.effect)]
    metric = DRAWN.get(against, "mcnemar_p")
    tested = {c: row for c in concepts if (row := table.find(c, arm, metric))}
    p = {c: row["value"] for c, row in tested.items()}
    family = sum(c != MEAN for c in p)
    adjusted = holm({c: v for c, v in p.items() if c != MEAN}) | {c: v for c, v in p.items() if c == MEAN}
    out = []
    for concept in concepts:
        change = _change(table, concept, arm, against)
        if concept in p:
            significant: bool | None = adjusted[concept] < LEVEL
            draws = tested[concept]["n"] if against in DRAWN else None
            # of R draws the smallest p-value is 1 / (R + 1), and Holm multiplies the smallest of a family by its number
            if draws and not significant and (1 if concept == MEAN else family) / (draws + 1) >= LEVEL:
                significant = None
        else:
            significant = _by_interval(table, concept, arm, against)
        out.append(Comparison(concept, arm, against, change, p.get(concept), adjusted.get(concept), significant))
    return out


def compare(table: RowTable, arm: str, concept: str, *, against: str = "unsteered") -> Comparison | None:
    """One of `comparisons`, or None where the arm was not scored on the concept."""
    return next((c for c in comparisons(table, arm, against=against) if c.concept == concept), None)


def _change(table: RowTable, concept: str, arm: str, against: str) -> float | None:
    here, there = table.find(concept, arm, table.effect), table.find(concept, against, table.effect)
    return None if here is None or there is None else here["value"] - there["value"]


def _by_interval(table: RowTable, concept: str, arm: str, against: str) -> bool | None:
    gain = table.find(concept, arm, "gain") if against == "unsteered" else None
    if gain is not None and gain["low"] is not None:
        return gain["low"] > 0 or gain["high"] < 0
    here, there = table.find(concept, arm, table.effect), table.find(concept, against, table.effect)
    if here is None or there is None or None in (here["low"], there["low"]):
        return None
    return here["low"] > there["high"] or here["high"] < there["low"]
