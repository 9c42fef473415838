"""Telling MLflow: connected in the background, in batches, and never the reason why a pipeline fails."""

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from flows.tracking.notes import Note, note_of
from flows.tracking.waiting import put_by, tell_waiting
from registry import home

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)
Item = TypeVar("Item")

EXPERIMENT = "contrans"
RUN_ID = "contrans.run_id"
"""The tag that all runs of one note have: the id of the pipeline's run."""
MODELS = "CONTRANS_MLFLOW_MODELS"
"""Environment variable: "1" makes an entry of MLflow's model registry for each transplant."""
_MAX_PARAM, _MAX_TAG = 6000, 5000  # characters; these and the batches are MLflow's own limits
_METRICS, _PARAMS, _INPUTS = 1000, 100, 100
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # A server that is down is to cost seconds: MLflow itself would try for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class Tracker:
    """Connects to MLflow in the background, since importing it takes seconds, and notes runs.

    Nothing that MLflow does ends a pipeline: a failure is warned of, the note waits, and the next run that finds
    MLflow tells it.

    Attributes:
        told: MLflow's ids of earlier runs that had waited and were told now, by the ids of the pipelines' runs.
    """

    def __init__(self) -> None:
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        self.told: dict[str, str] = {}
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._connect, name="mlflow", daemon=True)
        self._thread.start()

    def track(
        self,
        document: Mapping[str, Any],
        *,
        started: float,
        tags: Mapping[str, str],
        files: Mapping[str, bytes],
    ) -> str | None:
        """Notes a finished run, and then those that waited.

        Args:
            document: The run's document; see `flows.results`.
            started: When it began, in seconds since 1970.
            tags: The run's ids elsewhere.
            files: Further artifacts by name.

        Returns:
            MLflow's id of the run, or None if it could not be noted and waits.
        """
        return self.note(note_of(document, started=started, ended=time.time(), tags=tags, files=files))

    def note(self, note: Note) -> str | None:
        """Notes what is finished, and then what waited.

        Args:
            note: What happened.

        Returns:
            MLflow's id of it, or None if it could not be noted and waits.
        """
        self._thread.join()
        if self._client is None:
            self._put_by(note, self._failure)
            return None
        expected = failures()
        try:
            found = self._tell(note)
        except expected as error:
            self._put_by(note, error)
            return None
        try:
            self.told = tell_waiting(self._tell_again)
        except expected as error:
            log.warning("Runs that wait for MLflow wait on (%s).", _first_line(error))
        return found

    def _put_by(self, note: Note, why: Exception | None) -> None:
        reason = _first_line(why) if why is not None else "it does not answer"
        waits = "; it waits, and the next run that finds MLflow tells it" if put_by(note) else ""
        log.warning("The run is not in MLflow (%s)%s. The registry has it all the same.", reason, waits)

    def _connect(self) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            self._failure = error
            return
        logging.getLogger("alembic").setLevel(logging.ERROR)
        try:
            uri = os.environ.get("MLFLOW_TRACKING_URI")
            own = uri is None
            client = MlflowClient(tracking_uri=uri or own_store(home().resolve() / "mlflow.db"))
            self._experiment = _experiment(client, home() / "mlflow-artifacts" if own else None)
            self._client = client
        except failures() as error:
            self._failure = error

    def _tell_again(self, note: Note) -> str:
        """Tells a note that may have been told in part, as the connection broke in the middle of it."""
        client = self._connected()
        for half_told in client.search_runs([self._experiment], f"tags.`{RUN_ID}` = '{note.tags.get(RUN_ID, '')}'"):
            client.delete_run(half_told.info.run_id)
        return self._tell(note)

    def _tell(self, note: Note, above: str | None = None) -> str:
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        client = self._connected()
        tags = {**note.tags, **({MLFLOW_PARENT_RUN_ID: above} if above else {})}
        run = client.create_run(
            self._experiment,
            start_time=round(note.started * 1000),
            run_name=note.name,
            tags={key: value[:_MAX_TAG] for key, value in tags.items()},
        )
        run_id: str = run.info.run_id
        for batch in _batches(note, round(note.ended * 1000)):
            client.log_batch(run_id, **batch)
        _log_inputs(client, run_id, note)
        _log_files(client, run_id, note.files)
        for below in note.below:
            self._tell(below, run_id)
        if os.environ.get(MODELS) == "1" and "contrans.transplant" in note.tags and not note.below:
            _enter_model(client, run, note)
        client.set_terminated(run_id, "FINISHED", end_time=round(note.ended * 1000))
        return run_id

    def _connected(self) -> "MlflowClient":
        if self._client is None:
            raise RuntimeError("there is no connection to MLflow")
        return self._client


def _batches(note: Note, at: int) -> Iterator[dict[str, Any]]:
    from mlflow.entities import Metric, Param

    for some in _in_parts(note.metrics.items(), _METRICS):
        yield {"metrics": [Metric(key, value, at, 0) for key, value in some]}
    for some in _in_parts(note.params.items(), _PARAMS):
        yield {"params": [Param(key, value[:_MAX_PARAM]) for key, value in some]}


def _log_inputs(client: "MlflowClient", run_id: str, note: Note) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    for some in _in_parts(note.inputs, _INPUTS):
        made = [
            DatasetInput(Dataset(i.name, i.digest, "contrans", i.source), [InputTag(MLFLOW_DATASET_CONTEXT, i.context)])
            for i in some
        ]
        client.log_inputs(run_id, made)


def _log_files(client: "MlflowClient", run_id: str, files: Mapping[str, bytes]) -> None:
    if not files:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        client.log_artifacts(run_id, folder)


def _enter_model(client: "MlflowClient", run: Any, note: Note) -> None:
    """A version in MLflow's model registry that points to the transplant in ours."""
    from mlflow.exceptions import MlflowException

    name = f"contrans.{note.tags['contrans.transplant'].partition('@')[0].replace('/', '.').replace(':', '.')}"
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    client.create_model_version(name, run.info.artifact_uri, run.info.run_id, tags=dict(note.tags))


def _in_parts(items: Iterable[Item], most: int) -> Iterator[list[Item]]:
    left = iter(items)
    while part := list(islice(left, most)):
        yield part


def failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when it cannot be told, to be called where MLflow has been imported."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def own_store(place: Path) -> str:
    """The URL of the user's own database, filled first if it is new.

    Filling takes seconds, and a process that ends in the middle would leave tables that MLflow can neither use nor
    complete: so it happens beside the place, which a database takes only when it is whole.
    """
    from mlflow.tracking import MlflowClient

    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not place.exists():
            for leftover in place.parent.glob(f".{place.name}.part*"):
                leftover.unlink()
            part = place.with_name(f".{place.name}.part")
            MlflowClient(tracking_uri=f"sqlite:///{part}").search_experiments(max_results=1)
            part.replace(place)
    return f"sqlite:///{place}"


def _experiment(client: "MlflowClient", artifacts: Path | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return found.experiment_id
    try:
        return client.create_experiment(EXPERIMENT, artifacts.resolve().as_uri() if artifacts else None)
    except MlflowException:
        found = client.get_experiment_by_name(EXPERIMENT)  # another run was faster
        if found is None:
            raise
        return found.experiment_id


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
