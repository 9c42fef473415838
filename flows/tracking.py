"""MLflow: one run for each run of a pipeline, with spec, numbers, figure, and the ids elsewhere."""

import json
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from registry import KINDS, home

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

EXPERIMENT = "contrans"
_MAX_PARAM, _MAX_TAG, _MAX_BATCH = 6000, 5000, 1000  # MLflow's own limits
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # A server that is down is to cost seconds: MLflow itself would try for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class Tracker:
    """Connects to MLflow in the background, since importing it takes seconds, and notes a run.

    Nothing that MLflow does ends a pipeline: failures are warned of, and the run has no MLflow id.
    """

    def __init__(self) -> None:
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
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
        """Notes a finished run.

        Args:
            document: The run's document; see `flows.results`.
            started: When it began, in seconds since 1970.
            tags: The run's ids elsewhere.
            files: Further artifacts by name.

        Returns:
            MLflow's id of the run, or None if it could not be noted.
        """
        self._thread.join()
        if self._client is None:
            log.warning("The run is not in MLflow (%s); the registry has it all the same.", self._failure)
            return None
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return self._note(self._client, document, started=started, tags=tags, files=files)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            log.warning("The run is not in MLflow (%s); the registry has it all the same.", _first_line(error))
            return None

    def _connect(self) -> None:
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
            from sqlalchemy.exc import SQLAlchemyError
        except ImportError as error:
            self._failure = error
            return
        logging.getLogger("alembic").setLevel(logging.ERROR)
        try:
            uri = os.environ.get("MLFLOW_TRACKING_URI")
            own = uri is None
            client = MlflowClient(tracking_uri=uri or _own_store(home().resolve() / "mlflow.db"))
            self._experiment = _experiment(client, home() / "mlflow-artifacts" if own else None)
            self._client = client
        except (MlflowException, SQLAlchemyError, OSError) as error:
            self._failure = error

    def _note(
        self,
        client: "MlflowClient",
        document: Mapping[str, Any],
        *,
        started: float,
        tags: Mapping[str, str],
        files: Mapping[str, bytes],
    ) -> str:
        from mlflow.entities import Metric, Param, RunTag

        spec = document["spec"]
        all_tags = {**tags, **_refs(document["versions"])}
        run = client.create_run(
            self._experiment,
            start_time=round(started * 1000),
            run_name=document["run"]["id"],
            tags={key: value[:_MAX_TAG] for key, value in all_tags.items()},
        )
        run_id: str = run.info.run_id
        now = run.info.start_time
        client.log_batch(
            run_id,
            metrics=[Metric(key, value, now, 0) for key, value in metrics(document)][:_MAX_BATCH],
            params=[Param(key, value[:_MAX_PARAM]) for key, value in parameters(spec)],
            tags=[RunTag("contrans.spec_hash", document["run"]["spec_hash"])],
        )
        client.log_text(run_id, yaml.safe_dump(spec, sort_keys=False), "spec.yaml")
        client.log_text(run_id, json.dumps(document, indent=1), "results.json")
        for name, data in files.items():
            _log_file(client, run_id, name, data)
        client.set_terminated(run_id, "FINISHED")
        return run_id


def parameters(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A spec as flat parameters: "validate.random_draws" and its value."""
    for key, value in spec.items():
        if isinstance(value, Mapping):
            yield from parameters(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def metrics(document: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The summary, and the values of every arm and concept at the dose that was tested."""
    for name, triple in document["summary"].items():
        for key in ("value", "low", "high"):
            if triple and triple.get(key) is not None:
                yield _key("summary", name, *(() if key == "value" else (key,))), triple[key]
    for arm, dose in document["doses"].items():
        yield _key("dose", arm), dose
    for name in ("match_rate", "heldout_r2", "survival", "lambda"):
        value = document.get(name, document["map"].get(name))
        if isinstance(value, (int, float)):
            yield _key("map", name), float(value)
    main = document["spec"]["validate"]["protocol"]
    for row in document["validations"]:
        if row["split"] != "dev" and row["value"] is not None:
            beside = () if row["protocol"] == main else (row["protocol"],)
            yield _key(*beside, row["arm"], row["metric"], row["concept"]), row["value"]
    for step, seconds in document["timings"].items():
        yield _key("seconds", step), seconds


def _key(*parts: str) -> str:
    return "/".join(re.sub(r"[^\w.-]+", "_", part, flags=re.ASCII).strip("_") for part in parts)


def _refs(versions: list[Mapping[str, Any]]) -> dict[str, str]:
    by_kind = {kind: [v["ref"] for v in versions if v["kind"] == kind] for kind in KINDS}
    return {f"contrans.{kind}": ", ".join(refs) for kind, refs in by_kind.items() if refs}


def _own_store(place: Path) -> str:
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


def _log_file(client: "MlflowClient", run_id: str, name: str, data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        client.log_artifact(run_id, str(path))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
