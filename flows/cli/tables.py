"""What a run shows at its end: what was chosen, arms, concepts, findings, and a verdict."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from contrans.report.evidence import evidence_of
from flows.results import verdict


def result_tables(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The tables of a run's document (see `flows.results`), and the verdict in plain words."""
    chosen, tried = found["choice"]["chosen"], found["choice"]["tried"]
    if tried:
        yield Text(
            f"Of {len(tried)} maps tried on dev the one from block {chosen['source_block']} to block "
            f"{chosen['target_block']} was chosen, fitted on {' and '.join(chosen['mix'])} rows.",
            style="dim",
        )
    yield from evidence_of(found)
    if found["cross_effects"]:
        from contrans.validation.cross_effects import CrossEffects  # needs torch, which a cached run does without

        yield CrossEffects.from_json(found["cross_effects"]).table()
    yield Text(verdict(found["summary"]))
