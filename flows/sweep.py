"""Running a sweep: the pipeline once for each value, and what came out side by side.

Every point is a flow run, a run of the registry and a run of MLflow of its own, with its whole document in its folder.
A point that fails is reported, and the rest goes on: what the points share is done once and kept either way.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from contrans.errors import ContransError
from contrans.report.sweeps import ARMS, sweep_figure, sweep_grid
from flows.results import ROW
from flows.runs import runs_folder
from flows.spec import Point, Sweep

FIGURE, RESULTS, TABLE = "sweep.png", "results.json", "table.md"
_METRICS = ("gain", "gain_recovered")


@dataclass(frozen=True)
class Outcome:
    """What came of a point.

    Attributes:
        point: the point.
        found: the document of its run, see `flows.results`; None if it failed.
        error: why it failed, in a sentence; None if it did not.
    """

    point: Point
    found: Mapping[str, Any] | None = None
    error: str | None = None


def run_points(
    sweep: Sweep,
    run: Callable[[dict[str, Any]], Mapping[str, Any]],
    *,
    order: Sequence[int] | None = None,
    begins: Callable[[int, Point], None] = lambda *_: None,
    ends: Callable[[Outcome], None] = lambda _: None,
) -> list[Outcome]:
    """Runs the points one after another; one that fails does not keep the others from running.

    Args:
        sweep: what to run.
        run: runs a spec and gives its document: the flow `pipeline`.
        order: numbers of the points in the order in which they run, by default that of the sweep.
        begins: told each point before it runs, and how many ran before it.
        ends: told what came of it.

    Returns:
        What came of each point, in the order of the sweep.
    """
    outcomes: dict[int, Outcome] = {}
    for at in range(len(sweep.points)) if order is None else order:
        point = sweep.points[at]
        begins(len(outcomes), point)
        outcomes[at] = _outcome(point, run)
        ends(outcomes[at])
    return [outcomes[at] for at in range(len(sweep.points))]


def sweep_document(sweep: Sweep, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The document of a sweep; see `flows.results` for what it holds."""
    return {"spec": sweep.spec, "sweep": {"keys": list(sweep.keys), "points": [entry(o) for o in outcomes]}}


def keep(document: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the document, its table and its figure into a folder of their own beside those of the points' runs.

    Args:
        document: of `sweep_document`.

    Returns:
        The document with `run`: `id`, `folder`, and `figure`, which is null where every point failed.

    Raises:
        ContransError: the folder cannot be written.
    """
    figures = {}
    if any(point["summary"] for point in document["sweep"]["points"]):
        figures[FIGURE] = sweep_figure(document)
    return keep_in_folder(document, "sweep", sweep_grid(document).markdown(), figures)


def keep_in_folder(document: Mapping[str, Any], what: str, table: str, figures: Mapping[str, bytes]) -> dict[str, Any]:
    """Writes a document of many runs, its table and its figures into a folder of their own.

    Args:
        document: of a sweep or a matrix.
        what: which of them.
        table: as markdown.
        figures: PNGs by the names of their files, the one that says the most first.

    Returns:
        The document with `run`: `id`, `folder`, and `figure`, the path of the first one or null.

    Raises:
        ContransError: the folder cannot be written.
    """
    name = f"{document['spec']['name']}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{what}-{uuid4().hex[:8]}"
    folder = runs_folder() / name
    figure = next((str(folder / file) for file in figures), None)
    whole = {**document, "run": {"id": name, "folder": str(folder), "figure": figure}}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TABLE).write_text(table + "\n", encoding="utf-8")
        for file, data in figures.items():
            (folder / file).write_bytes(data)
        (folder / RESULTS).write_text(json.dumps(whole, indent=1, ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise ContransError(
            f"The results of the {what} cannot be written to {folder} ({error.strerror}); free space and run it again, "
            f"what is done is not done again."
        ) from error
    return whole


def failure(outcomes: Sequence[Outcome], *, what: str = "points of the sweep") -> ContransError | None:
    """The points that failed as one error to end with; None if all went well.

    Args:
        outcomes: of all points.
        what: what they are called.
    """
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not failed:
        return None
    return ContransError(
        f"{len(failed)} of {len(outcomes)} {what} failed, {failed[0].point.label} first: {failed[0].error}"
    )


def _outcome(point: Point, run: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Outcome:
    try:
        return Outcome(point, found=run(point.spec.canonical()))
    except _of_the_point() as error:
        return Outcome(point, error=(str(error).strip().splitlines() or [type(error).__name__])[0])


def _of_the_point() -> tuple[type[Exception], ...]:
    """Errors that are a point's own: its settings cannot be used, or its models do not fit into the memory."""
    torch = sys.modules.get("torch")
    return (ContransError,) if torch is None else (ContransError, torch.OutOfMemoryError)


def entry(outcome: Outcome) -> dict[str, Any]:
    """What the document of a sweep says of a point; see `flows.results`."""
    found = outcome.found
    said: dict[str, Any] = {"values": outcome.point.values, "error": outcome.error}
    if found is None:
        return {**said, "summary": None, "choice": None, "effects": {}, "rows": [], "findings": [], "run": None}
    protocol = found["spec"]["validate"]["protocol"]
    effect = found["effects"][protocol]
    kept = {key: found[key] for key in ("summary", "choice", "findings", "run")}
    rows = [
        {key: row[key] for key in ROW}
        for row in found["validations"]
        if (row["protocol"], row["split"]) == (protocol, "test")
        and row["arm"] in ARMS
        and row["metric"] in (effect, *_METRICS)
    ]
    return {**said, **kept, "effects": {protocol: effect}, "rows": rows}
