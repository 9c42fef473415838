"""What a run shows at its end: arms, concepts, and a verdict."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from flows.results import arms_of, concepts_of, find, verdict


def result_tables(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The tables of a run's document (see `flows.results`), and the verdict in plain words."""
    rows = found["validations"]
    target = found["spec"]["target"]
    table = Table(title=f"{found['spec']['source']} → {target}: mean over concepts, on test", title_justify="left")
    for name in ("arm", "dose", "logit accuracy", "token accuracy", "KL"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for arm in arms_of(rows):
        logit, token = (find(rows, "all", arm, metric) for metric in ("logit_accuracy", "token_accuracy"))
        kl = find(rows, "all", arm, "kl", split="generic")
        style = "bold" if arm == "transplanted" else ""
        table.add_row(arm, _dose(logit), _number(logit, interval=True), _number(token), _number(kl), style=style)
    yield table
    yield _by_concept(found)
    yield Text(verdict(found["summary"]))


def _by_concept(found: Mapping[str, Any]) -> Table:
    rows, summary = found["validations"], found["summary"]
    arms = arms_of(rows)
    table = Table(title="logit accuracy by concept", title_justify="left")
    table.add_column("concept")
    for arm in arms:
        table.add_column(arm.replace("_", " "), justify="right")
    table.add_column("gain recovered", justify="right")
    for concept in [*concepts_of(rows), "all"]:
        gain = summary.get("gain_recovered" if concept == "all" else f"gain_recovered/{concept}")
        cells = [_number(find(rows, concept, arm, "logit_accuracy")) for arm in arms]
        table.add_row(concept, *cells, _number(gain, interval=True), style="bold" if concept == "all" else "")
    return table


def _dose(row: Mapping[str, Any] | None) -> str:
    return "" if row is None or row["dose"] is None else f"{row['dose']:g}"


def _number(row: Mapping[str, Any] | None, *, interval: bool = False) -> str:
    if row is None or row["value"] is None:
        return "–"
    shown = f"{row['value']:.2f}" if abs(row["value"]) >= 0.005 or not row["value"] else f"{row['value']:.0e}"
    return f"{shown} [{row['low']:.2f}, {row['high']:.2f}]" if interval and row["low"] is not None else shown
