"""The flow `pipeline`: a spec in, versions in the registry out; what is done already is not done again.

Two things remember what is done. The store has the outputs of steps by content key; Prefect has each task's
small JSON result by the same key, so that a step that is done costs no task body. A Prefect result whose
output is gone from the store is not believed.
"""

import json
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.utilities.annotations import quote

from contrans.models import ModelRecord
from flows.locks import to_compute
from flows.progress import waiting_for
from flows.registering import Until, register_all, result_rows
from flows.results import document, verdict
from flows.retrying import RETRIES
from flows.session import Session, current, run_session
from flows.steps import Step, StepContext, build_steps, spared
from flows.study import SIDES, Study, study
from registry import Version, home

FIGURE = "accuracy_by_dose.png"


@task(name="prepare models", cache_policy=NO_CACHE, **RETRIES)
def prepare_models() -> dict[str, ModelRecord]:
    """Names both models for certain; fetches, converts and loads those that were never loaded here."""
    session = current()
    with session.timed("prepare models"):
        return {side: session.pool.record(side) for side in SIDES}


@task(
    name="step",
    persist_result=True,
    result_serializer="json",
    cache_key_fn=lambda _, parameters: parameters["key"],
    **RETRIES,
)
def run_step(name: str, key: str) -> dict[str, Any]:
    """Computes a step and keeps its output, unless another run has done so meanwhile.

    Args:
        name: The step.
        key: Its content key, which is also the key of this task's result.
    """
    session = current()
    step = session.steps[name]
    with (
        session.timed(name),
        to_compute(session.store, key, waits=partial(session.watcher.say, waiting_for(name))) as wanted,
    ):
        if not wanted:
            return {"key": key}
        session.watcher.begin(name, sum(cost.tokens for cost in step.cost_left(session.store).by_model))
        spec = session.batches.fitted(session.spec)
        if spec is not session.spec:
            records = (session.pool.record(side) for side in SIDES)
            step = next(made for made in build_steps(spec, *records) if made.name == name)
        context = StepContext(spec, session.store, session.steps, session.pool, session.watcher.advance)
        with session.batches.smaller_next_time():
            session.store.write(key, step.run(context))
        session.computed.append(name)
    return {"key": key}


@task(name="register", cache_policy=NO_CACHE)
def register(models: Mapping[str, ModelRecord], until: Until = "validation") -> list[Version]:
    """Puts everything, or what comes before a kind and this kind, into the registry; what is there stays as it is."""
    s = current()
    with s.timed("register"):
        return register_all(_study(s, models), models, s.steps, s.store, s.registry, s.run_id, until=until)


@task(name="track", cache_policy=NO_CACHE)
def track(found: Mapping[str, Any], figure: bytes) -> str | None:
    """Makes the MLflow run."""
    session = current()
    ids = {"prefect.flow_run_id": session.flow_run_id, "contrans.run_id": session.run_id}
    with session.timed("track"):
        return session.tracker.track(found, started=session.started, tags=ids, files={FIGURE: figure})


@flow(name="pipeline", validate_parameters=False)
def pipeline(spec: dict[str, Any]) -> dict[str, Any]:
    """Refines concepts, fits the map, transplants, validates, registers and tracks.

    Args:
        spec: A pipeline spec as plain JSON; see `flows.spec.PipelineSpec`.

    Returns:
        The document described in `flows.results`.

    Raises:
        ContransError: The spec, a model, a text or the registry cannot be used.
    """
    return run_session(spec, run_all)


def run_all(session: Session, goals: Collection[str] | None = None) -> dict[str, Any]:
    """Runs every step, or some with all they need, registers what came out and tracks it.

    Args:
        session: The run.
        goals: Steps to get done, "figure" and what it needs at least; by default every step.

    Returns:
        The document described in `flows.results`.
    """
    early: Mapping[str, float] = {}
    if session.ahead is not None:
        session.ahead.finish()
        early = session.ahead.seconds
    models = prepare_models()
    if session.ahead is not None:
        session.timings["prepare models"] += round(session.ahead.preparing, 4)
    run_steps(session, models, early, goals=goals)
    versions = register(models)
    figure = session.store.read(session.steps["figure"].key, FIGURE)[FIGURE]
    (session.folder / FIGURE).write_bytes(figure)
    run: dict[str, Any] = {
        "id": session.run_id,
        "spec_hash": session.spec.hash,
        "flow_run_id": session.flow_run_id,
        "mlflow_run_id": None,
        "figure": str(session.folder / FIGURE),
    }
    found = document(
        session.spec,
        timings=session.timings,
        computed=session.computed,
        cached=[name for name in session.steps if name not in session.computed],
        versions=versions,
        results=result_rows(_study(session, models), session.steps, session.store),
        run=run,
    )
    whole: Any = quote(found)  # or Prefect looks for futures in every part of it, three times
    mlflow_run_id = track(whole, figure)
    for waited, its_id in session.tracker.told.items():
        session.registry.link_mlflow(waited, its_id)
    found = {**found, "timings": session.timings, "run": {**run, "mlflow_run_id": mlflow_run_id}}
    session.registry.finish_run(session.run_id, "completed", mlflow_run_id=mlflow_run_id)
    (session.folder / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    _leave_note(found)
    return found


def run_steps(
    session: Session,
    models: Mapping[str, ModelRecord],
    early: Mapping[str, float],
    *,
    goals: Collection[str] | None = None,
) -> None:
    """Runs every step that is not done, in order; those done early, in seconds by key, are only noted.

    Args:
        session: The run.
        models: Both models.
        early: Seconds of the steps that were done before the flow began, by key.
        goals: Steps to get done with all they need; by default every step.
    """
    steps = needed_for(build_steps(session.spec, models["source"], models["target"]), goals)
    session.steps = {step.name: step for step in steps}
    with session.store.holding(step.key for step in steps):
        needless = spared(steps, session.store)
        for step in steps:
            if step.name in needless:
                session.timings[step.name] = 0.0
                session.watcher.end(step.name, 0.0, computed=False)
                continue
            work = run_step.with_options(
                name=step.name,
                result_storage=home() / "prefect-results",
                refresh_cache=not session.store.has(step.key),
            )
            session.timings[step.name] = 0.0  # unless the task has more to do than to find its result
            work(step.name, step.key)
            if step.key in early:
                session.timings[step.name] = early[step.key]
                session.computed.append(step.name)
                continue
            computed = step.name in session.computed
            session.watcher.end(step.name, session.timings[step.name], computed=computed)


def needed_for(steps: list[Step], goals: Collection[str] | None) -> list[Step]:
    """The steps that some are made from, these included, in order; all of them if None."""
    if goals is None:
        return steps
    wanted = set(goals)
    for step in reversed(steps):
        if step.name in wanted:
            wanted |= set(step.inputs)
    return [step for step in steps if step.name in wanted]


def _study(session: Session, models: Mapping[str, ModelRecord]) -> Study:
    return study(session.spec, models["source"], models["target"])


def _leave_note(found: Mapping[str, Any]) -> None:
    """Leaves the verdict and the ids elsewhere on the flow run's page."""
    lines = [verdict(found["summary"], found["effects"][found["spec"]["validate"]["protocol"]]), ""]
    lines += [f"- {key}: `{found['run'][key]}`" for key in ("id", "mlflow_run_id", "spec_hash")]
    lines += [f"- {version['kind']}: `{version['ref']}`" for version in found["versions"]]
    create_markdown_artifact("\n".join(lines), key="contrans-run", description="What the run found")
