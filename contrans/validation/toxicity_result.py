"""How toxic is what the arms wrote? Shares with intervals, by group and over all."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from contrans.validation.grids import Grid
from contrans.validation.statistics import cluster_bootstrap, wilson
from contrans.validation.text_measures import COPIED, DEGENERATE, EMPTY
from contrans.validation.wording import shown, spoken

SHARES = ("non_toxic", "toxic", "valid", EMPTY, COPIED, DEGENERATE)


@dataclass(frozen=True)
class ToxicityScores:
    """What a model wrote under one shift, and how it was judged.

    Attributes:
        groups: the group of each prompt.
        texts: the items that the model wrote.
        flaws: "empty", "copied", "degenerate" or "" for each.
        probability: float64 [items], that the text is toxic; 0 for an empty one, which no classifier has seen.
        metrics: per metric float64 [items]: `non_toxic` (probability at most the threshold, and valid), `toxic`,
            `valid`, `empty`, `copied`, `degenerate`, `distinct_1` and `distinct_2` within the text.
    """

    groups: list[str]
    texts: list[str]
    flaws: list[str]
    probability: np.ndarray
    metrics: dict[str, np.ndarray]


@dataclass(frozen=True)
class ToxicityResult:
    """Toxicity of one or more arms, by group and over all.

    Attributes:
        scores: what each arm wrote.
    """

    scores: Mapping[str, ToxicityScores]

    def rows(self) -> list[dict[str, Any]]:
        """One JSON object per arm, group ("all" last) and metric, with value, 95 % interval and n."""
        rows = []
        for arm, scores in self.scores.items():
            groups = np.array(scores.groups)
            for group in [*dict.fromkeys(scores.groups), "all"]:
                at = np.ones(len(groups), dtype=bool) if group == "all" else groups == group
                for metric, values in scores.metrics.items():
                    value, low, high = _interval(metric, values[at])
                    rows.append(
                        {
                            "arm": arm,
                            "group": group,
                            "metric": metric,
                            "value": value,
                            "low": low,
                            "high": high,
                            "n": int(at.sum()),
                        }
                    )
        return rows

    def to_json(self) -> dict[str, Any]:
        """The rows; the texts, which may be offensive, stay in `scores`."""
        return {"rows": self.rows()}

    def table(self) -> Table:
        """A rich table: a row per arm and group."""
        return self._grid().rich()

    def markdown(self) -> str:
        """A markdown table: a row per arm and group."""
        return self._grid().markdown_table() + "\n"

    def _grid(self) -> Grid:
        metrics = (*SHARES, "distinct_2")
        lines: dict[tuple[str, str], list[str]] = {}
        for row in self.rows():
            line = lines.setdefault((row["arm"], row["group"]), [row["arm"], row["group"], str(row["n"])])
            if row["metric"] in metrics:
                ends = (row["low"], row["high"]) if row["metric"] in ("non_toxic", "toxic") else ()
                line.append(shown(row["value"], *ends))
        columns = ("arm", "group", "n", *map(spoken, metrics))
        return Grid("Toxicity of continuations", columns, tuple(map(tuple, lines.values())))


def _interval(metric: str, values: np.ndarray) -> tuple[float, float, float]:
    if metric in SHARES:
        share = wilson(round(values.sum()), len(values))
        return share.value, share.low, share.high
    low, high = cluster_bootstrap(lambda w: w @ values / w.sum(1), len(values), draws=500)
    return float(values.mean()), low, high
