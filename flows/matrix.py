"""Running a matrix: the pipeline once for each cell, in an order in which few models are loaded, and one summary.

As in a sweep every cell is a flow run, a run of the registry and a run of MLflow of its own, and a cell that fails is
reported while the rest goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from contrans.errors import ContransError
from flows.matrix_order import ordered
from flows.matrix_report import matrix_figures, matrix_grid
from flows.models import SHARED, Models, budget, size_of
from flows.pool import known_record
from flows.runs import steps_folder
from flows.spec import Matrix, PipelineSpec, Point
from flows.steps import build_steps, spared
from flows.store import Store
from flows.sweep import Outcome, entry, keep_in_folder, run_points


def running_order(matrix: Matrix) -> list[int]:
    """Numbers of the cells in the order in which they run: those of which nothing is left to do come last.

    Raises:
        ContransError: a model is named that does not exist, or the environment's memory is no number.
    """
    pairs = [(cell.spec.source, cell.spec.target) for cell in matrix.points]
    compute = matrix.points[0].spec.compute
    room = budget(compute)
    found = {model: size_of(model, compute) for model in dict.fromkeys(m for pair in pairs for m in pair)}
    known = [size for size in found.values() if size is not None]
    # of a model that is not here yet, and not well known either; a pair is loaded in any case
    usual = sum(known) / len(known) if known else room / 2
    sizes = {model: usual if size is None else size for model, size in found.items()}
    left = [number for number, cell in enumerate(matrix.points) if not _is_done(cell.spec)]
    order = [left[at] for at in ordered([pairs[number] for number in left], sizes, room)]
    return [*order, *sorted(set(range(len(pairs))) - set(order))]


def _is_done(spec: PipelineSpec) -> bool:
    """Whether every step of a spec has its output in the store."""
    store = Store(steps_folder())
    try:
        source, target = (known_record(reference, spec.compute.device) for reference in (spec.source, spec.target))
        if source is None or target is None:
            return False
        steps = build_steps(spec, source, target)
    except ContransError:  # said when its turn comes
        return False
    needless = spared(steps, store)
    return all(store.has(step.key) or step.name in needless for step in steps)


def run_matrix(
    matrix: Matrix,
    run: Callable[[dict[str, Any]], Mapping[str, Any]],
    *,
    begins: Callable[[int, Point], None] = lambda *_: None,
    ends: Callable[[Outcome], None] = lambda _: None,
    order: Sequence[int] | None = None,
    models: Models = SHARED,
) -> list[Outcome]:
    """Runs the cells one after another.

    Args:
        matrix: what to run.
        run: runs a spec and gives its document: the flow `pipeline`.
        begins: told each cell before it runs, and how many ran before it.
        ends: told what came of it.
        order: as `running_order` gives it; found here if not given.
        models: where loaded models are kept; told which will be wanted.

    Returns:
        What came of each cell, in the order of the matrix.
    """
    order = running_order(matrix) if order is None else order
    pairs = [(cell.spec.source, cell.spec.target) for cell in matrix.points]

    def starts(number: int, point: Point) -> None:
        models.expect(model for at in order[number:] for model in pairs[at])
        begins(number, point)

    try:
        return run_points(matrix, run, order=order, begins=starts, ends=ends)
    finally:
        models.expect(())


def matrix_document(matrix: Matrix, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The document of a matrix; see `flows.results` for what it holds."""
    cells = [
        {
            "source": outcome.point.spec.source,
            "target": outcome.point.spec.target,
            "concepts": list(outcome.point.spec.concepts),
            **entry(outcome),
        }
        for outcome in outcomes
    ]
    return {"spec": matrix.spec, "matrix": {"keys": list(matrix.keys), "cells": cells}}


def keep_matrix(document: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the document, its table and its heat maps into a folder of their own beside those of the cells' runs.

    Args:
        document: of `matrix_document`.

    Returns:
        The document with `run`: `id`, `folder`, and `figure`, which is null where every cell failed.

    Raises:
        ContransError: the folder cannot be written.
    """
    return keep_in_folder(document, "matrix", matrix_grid(document).markdown(), matrix_figures(document))
