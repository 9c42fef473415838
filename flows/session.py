"""What one flow run works with: its session, who watches it, and how its beginning and end are noted."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run
from pydantic import ValidationError

from contrans.errors import SpecError
from flows.ahead import Ahead
from flows.pool import Pool
from flows.progress import Silent, Watcher
from flows.retrying import Batches
from flows.runs import alive, commit, open_registry, steps_folder
from flows.spec import PipelineSpec
from flows.spec.sentences import Place, sentence
from flows.step import Step
from flows.store import Store
from flows.tracking import Tracker
from registry import Registry


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
    spec, token = session.spec, _SESSION.set(session)
    try:
        with noted(
            session.registry,
            session.run_id,
            spec=spec.canonical(),
            spec_hash=spec.hash,
            flow_run_id=session.flow_run_id,
        ):
            yield
    finally:
        _SESSION.reset(token)


@contextmanager
def noted(
    registry: Registry, run_id: str, *, spec: Mapping[str, Any], spec_hash: str, flow_run_id: str
) -> Iterator[None]:
    """Notes in the registry that a run begins, and how it ends.

    Args:
        registry: Where it is noted.
        run_id: Its id there.
        spec: What was to be done, plain JSON.
        spec_hash: What makes two of them the same.
        flow_run_id: Its id in Prefect.
    """
    registry.start_run(run_id, spec=spec, spec_hash=spec_hash, flow_run_id=flow_run_id, commit=commit())
    state = "failed"
    try:
        yield
        state = "completed"
    except (KeyboardInterrupt, TerminationSignal):  # the latter from a worker that was told to cancel
        state = "cancelled"
        raise
    finally:
        registry.finish_run(run_id, state)


def current() -> Session:
    """The session of the flow run that is under way."""
    return _SESSION.get()
