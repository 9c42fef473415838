"""The flow `pipeline`: a spec in, versions in the registry out; what is done already is not done again.

Two things remember what is done. The store has the outputs of steps by content key; Prefect has each task's
small JSON result by the same key, so that a step that is done costs no task body. A Prefect result whose
output is gone from the store is not believed.
"""

import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from pydantic import ValidationError

from contrans.errors import SpecError
from contrans.models import ModelRecord
from flows.ahead import Ahead
from flows.locks import to_compute
from flows.pool import Pool
from flows.progress import Silent, Watcher, waiting_for
from flows.registering import Until, register_all, result_rows
from flows.results import document, verdict
from flows.retrying import RETRIES, Batches
from flows.runs import alive, commit, open_registry, steps_folder
from flows.spec import PipelineSpec
from flows.spec.sentences import Place, sentence
from flows.steps import Step, StepContext, build_steps, spared
from flows.store import Store
from flows.study import SIDES, Study, study
from flows.tracking import Tracker
from registry import Registry, Version, home

log = logging.getLogger(__name__)
FIGURE = "accuracy_by_dose.png"


@dataclass
class Session:
    """What the tasks of one flow run share and Prefect need not know."""

    spec: PipelineSpec
    flow_run_id: str
    run_id: str
    folder: Path
    pool: Pool
    store: Store
    registry: Registry
    watcher: Watcher
    tracker: Tracker
    started: float
    ahead: Ahead | None = None
    batches: Batches = field(default_factory=Batches)
    steps: dict[str, Step] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Notes how long something takes."""
        start = time.monotonic()
        yield
        self.timings[name] = round(time.monotonic() - start, 4)


_SESSION: ContextVar[Session] = ContextVar("session")
_WATCHER: ContextVar[Watcher] = ContextVar("watcher")
_TRACKER: ContextVar[Tracker] = ContextVar("tracker")
_AHEAD: ContextVar[Ahead | None] = ContextVar("ahead", default=None)


@contextmanager
def watched(watcher: Watcher, tracker: Tracker, ahead: Ahead | None = None) -> Iterator[None]:
    """Lets a watcher see what flow runs do, and lends them a tracker that is connecting already.

    Args:
        watcher: Is told what happens.
        tracker: Notes the runs.
        ahead: Has begun with the steps of a spec; its flow run takes over.
    """
    watching, tracking, running = _WATCHER.set(watcher), _TRACKER.set(tracker), _AHEAD.set(ahead)
    try:
        yield
    finally:
        _WATCHER.reset(watching)
        _TRACKER.reset(tracking)
        _AHEAD.reset(running)


def watching() -> Watcher:
    """Who is told what flow runs do."""
    return _WATCHER.get(Silent())


@task(name="prepare models", cache_policy=NO_CACHE, **RETRIES)
def prepare_models() -> dict[str, ModelRecord]:
    """Names both models for certain; fetches, converts and loads those that were never loaded here."""
    session = _SESSION.get()
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
    session = _SESSION.get()
    step = session.steps[name]
    with to_compute(session.store, key, waits=partial(session.watcher.say, waiting_for(name))) as wanted:
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
    s = _SESSION.get()
    return register_all(_study(s, models), models, s.steps, s.store, s.registry, s.run_id, until=until)


@task(name="track", cache_policy=NO_CACHE)
def track(found: Mapping[str, Any], figure: bytes) -> str | None:
    """Makes the MLflow run."""
    session = _SESSION.get()
    ids = {"prefect.flow_run_id": session.flow_run_id, "contrans.run_id": session.run_id}
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


def run_session(spec: Mapping[str, Any], work: Callable[[Session], dict[str, Any]]) -> dict[str, Any]:
    """Does some work of a spec in the flow run that is under way, and notes it in the registry.

    Args:
        spec: A pipeline spec as plain JSON.
        work: What is done.

    Returns:
        What the work gives.

    Raises:
        ContransError: The spec, a model, a text or the registry cannot be used.
    """
    try:
        checked = PipelineSpec.model_validate(spec)
    except ValidationError as error:
        raise SpecError(sentence(error, {}, Place("the spec"))) from error
    flow_run_id = str(flow_run.get_id())
    run_id = f"{checked.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{flow_run_id[:8]}"
    watcher, ahead = _WATCHER.get(Silent()), _AHEAD.get()
    if ahead is not None and ahead.spec.hash != checked.hash:
        ahead = None
    with open_registry() as registry, alive(run_id, registry) as folder:
        session = Session(
            spec=checked,
            flow_run_id=flow_run_id,
            run_id=run_id,
            folder=folder,
            pool=ahead.pool if ahead is not None else Pool(checked, say=watcher.say),
            store=Store(steps_folder()),
            registry=registry,
            watcher=watcher,
            tracker=_TRACKER.get(None) or Tracker(),
            started=time.time(),
            ahead=ahead,
        )
        try:
            with _noted(session):
                return work(session)
        finally:
            session.pool.close()


@contextmanager
def _noted(session: Session) -> Iterator[None]:
    """Notes in the registry that the run begins, and how it ends."""
    spec, registry = session.spec, session.registry
    token = _SESSION.set(session)
    registry.start_run(
        session.run_id,
        spec=spec.canonical(),
        spec_hash=spec.hash,
        flow_run_id=session.flow_run_id,
        commit=commit(),
    )
    state = "failed"
    try:
        yield
        state = "completed"
    except (KeyboardInterrupt, TerminationSignal):  # the latter from a worker that was told to cancel
        state = "cancelled"
        raise
    finally:
        _SESSION.reset(token)
        registry.finish_run(session.run_id, state)


def current() -> Session:
    """The session of the flow run that is under way."""
    return _SESSION.get()


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
    with session.timed("prepare models"):
        models = prepare_models()
    if session.ahead is not None:
        session.timings["prepare models"] += round(session.ahead.preparing, 4)
    run_steps(session, models, early, goals=goals)
    with session.timed("register"):
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
    with session.timed("track"):
        mlflow_run_id = track(found, figure)
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
            with session.timed(step.name):
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
    lines = [verdict(found["summary"], found["spec"]["validate"]["protocol"]), ""]
    lines += [f"- {key}: `{found['run'][key]}`" for key in ("id", "mlflow_run_id", "spec_hash")]
    lines += [f"- {version['kind']}: `{version['ref']}`" for version in found["versions"]]
    create_markdown_artifact("\n".join(lines), key="contrans-run", description="What the run found")
