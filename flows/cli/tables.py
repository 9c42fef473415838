"""What a run shows at its end: what was chosen, arms, concepts, findings, and a verdict; of a sweep its points."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from contrans.report.evidence import evidence_of
from contrans.report.sweeps import sweep_grid
from contrans.validation.samples_result import Samples
from contrans.validation.stability_result import StabilityResult
from flows.results import verdict
from flows.spec.sweeps import label_of


def result_tables(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The tables of a run's document (see `flows.results`), and the verdict in plain words."""
    chosen, tried = found["choice"]["chosen"], found["choice"]["tried"]
    if tried:
        yield Text(
            f"Of {len(tried)} maps tried on dev the one from block {chosen['source_block']} to block "
            f"{chosen['target_block']} was chosen: {chosen['estimator']} on {' and '.join(chosen['mix'])} rows.",
            style="dim",
        )
    yield from evidence_of(found)
    if found["cross_effects"]:
        from contrans.validation.cross_effects import CrossEffects  # needs torch, which a cached run does without

        yield CrossEffects.from_json(found["cross_effects"]).table()
    if found["stability"]:
        yield StabilityResult.from_json(found["stability"]).table()
    if found["samples"]:
        yield Samples.from_rows(found["samples"]).table()
    yield Text(verdict(found["summary"], found["effects"][found["spec"]["validate"]["protocol"]]))


def sweep_tables(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The table of a sweep's document, and the verdict on each point."""
    yield sweep_grid(found)
    for point in found["sweep"]["points"]:
        said = point["error"] or verdict(point["summary"], *point["effects"].values())
        style = "red" if point["error"] else ""
        yield Text.assemble((f"{label_of(point['values'])}: ", "bold"), (said, style))
