"""The nightly refresh: whole pipelines again, of which only what has changed is computed."""

from collections.abc import Sequence
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal

from contrans.models.reference import short_name
from flows.pipeline import pipeline
from flows.progress import Silent
from flows.runs import open_registry
from flows.serving.forms import Settings, Spec, Specs, read
from flows.serving.handing_out import hand_out, withdraw
from flows.serving.runners import handed_to, task_runner
from flows.serving.showing import Progress, begin_run, leave_assets, leave_pairs
from flows.serving.slots import gpu_slot
from flows.serving.stages import show
from flows.spec import PipelineSpec, load_sweep
from flows.sweep import Outcome, failure, run_points

_DAY = 24 * 3600.0


@task(name="cell", cache_policy=NO_CACHE)
def run_cell(spec: dict[str, Any]) -> dict[str, Any]:
    """Runs one pipeline of many, in whatever process the task runner chose.

    Args:
        spec: A pipeline spec as plain JSON.

    Returns:
        Its document, see `flows.results`.
    """
    with gpu_slot(PipelineSpec.model_validate(spec).compute.device):
        found = pipeline(spec)
    show(found)
    with open_registry() as registry:
        leave_assets(registry.run_versions(found["run"]["id"]), registry)
    return found


@flow(name="cell", timeout_seconds=_DAY)
def cell(spec: Spec = "quickstart", settings: Settings = []) -> dict[str, Any]:  # noqa: B006  a form's default
    """Runs one whole pipeline, such as those that a refresh hands to workers.

    Args:
        spec: Name of a spec that ships, path of a YAML file where the worker runs, or the spec itself as JSON.
        settings: Settings over those of the spec, KEY=VALUE each, such as validate.random_draws=5.

    Returns:
        Its document, see `flows.results`.

    Raises:
        ContransError: The spec is not valid, or the pipeline failed.
    """
    checked = read(spec, settings)
    begin_run([f"spec:{checked.name}"])
    return run_cell.fn(checked.canonical())


@flow(name="cells", validate_parameters=False)
def _cells(sweeps: list[Any], deployment: str | None = None) -> list[Outcome]:
    # Each is waited for in turn, so that what fails is a point's own failure and the others go on.
    points = [point for sweep in sweeps for point in sweep.points]
    if deployment is None:
        return _outcomes(sweeps, [run_cell.submit(point.spec.canonical()) for point in points])
    handed = hand_out([point.spec for point in points], deployment)
    try:
        return _outcomes(sweeps, handed)
    except (KeyboardInterrupt, TerminationSignal):  # the latter from a worker that was told to cancel
        withdraw(handed)
        raise


def _outcomes(sweeps: list[Any], running: Sequence[Any]) -> list[Outcome]:
    points = [point for sweep in sweeps for point in sweep.points]
    futures = {id(point): future for point, future in zip(points, running, strict=True)}
    progress = Progress(lambda: len(points), Silent())

    def ends(outcome: Outcome) -> None:
        progress.end(outcome.point.spec.name, 0.0, computed=True)

    outcomes = []
    for sweep in sweeps:
        waiting = iter([futures[id(point)] for point in sweep.points])
        outcomes += run_points(sweep, lambda _, waiting=waiting: next(waiting).result(), ends=ends)
    return outcomes


@flow(name="refresh", timeout_seconds=2 * _DAY)
def refresh(specs: Specs = ["quickstart"], settings: Settings = []) -> dict[str, Any]:  # noqa: B006  a form's defaults
    """Runs whole pipelines; one that fails does not keep the others from running.

    Args:
        specs: Names of specs that ship, or paths of YAML files where the worker runs; sweeps and matrices too.
        settings: Settings over those of every spec, KEY=VALUE each, such as validate.random_draws=5.

    Returns:
        `points`, one for each pipeline in order: `label`, `error` (null where it went well), `summary` and `run`.

    Raises:
        ContransError: A spec is not valid, or a pipeline failed, after all of them ran.
    """
    sweeps = [load_sweep(spec, settings) for spec in specs]
    begin_run([f"spec:{sweep.name}" for sweep in sweeps])
    deployment = handed_to()
    cells = _cells if deployment is not None else _cells.with_options(task_runner=task_runner())
    outcomes = cells(sweeps, deployment)
    _leave_pairs(outcomes)
    failed = failure(outcomes)
    if failed is not None:
        raise failed
    return {"points": [_entry(outcome) for outcome in outcomes]}


def _leave_pairs(outcomes: list[Outcome]) -> None:
    """A heat map of gain recovered where there are several pairs of models."""
    cells = {}
    for outcome in outcomes:
        value = ((outcome.found or {}).get("summary") or {}).get("gain_recovered", {}).get("value")
        if value is not None:
            spec = outcome.point.spec
            cells[short_name(spec.source), short_name(spec.target)] = value
    if len(cells) > 1:
        leave_pairs(cells, unit="gain recovered")


def _entry(outcome: Outcome) -> dict[str, Any]:
    found = outcome.found or {}
    name = outcome.point.spec.name
    return {"label": name, "error": outcome.error, "summary": found.get("summary"), "run": found.get("run")}
