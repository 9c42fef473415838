"""Everything on one machine: Prefect's server with its UI, MLflow's, and workers, on loopback."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from contrans.errors import ContransError
from flows.server import set_environment
from flows.serving.children import Child, stop, watch
from flows.serving.reaping import HOST_NAME
from registry import home

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
START_SECONDS = 180.0
_REAP_SECONDS = 30.0


@dataclass(frozen=True)
class Addresses:
    """Where people and programs find what is served.

    Attributes:
        prefect: Prefect's UI.
        api: Prefect's API: the value of `PREFECT_API_URL`.
        mlflow: MLflow's UI; None where it is left out.
        deployments: What was registered, each as "flow/name".
    """

    prefect: str
    api: str
    mlflow: str | None
    deployments: tuple[str, ...]


def free_port(wanted: int, *, insist: bool) -> int:
    """A port of loopback that nobody listens on.

    Args:
        wanted: The port to take if it is free; 0 for any.
        insist: Whether no other will do.

    Raises:
        ContransError: It is taken, and no other will do.
    """
    for port in dict.fromkeys((wanted, 0)):
        with socket.socket() as probe:
            try:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((LOOPBACK, port))
            except OSError as error:
                if insist:
                    raise ContransError(f"The port {port} is taken ({error.strerror}); name another one.") from error
                continue
            return probe.getsockname()[1]
    raise ContransError("No port of loopback is free; end a server.")


def serve(
    *,
    port: int,
    mlflow_port: int | None,
    pools: dict[str, int],
    file: Path,
    ready: Callable[[Addresses], None],
) -> None:
    """Serves until the process is told to end; what is there from before is gone on with.

    Args:
        port: Of Prefect's server.
        mlflow_port: Of MLflow's; None to leave it out.
        pools: Workers for each work pool.
        file: The file of deployments.
        ready: Told where everything is, once it is.

    Raises:
        ContransError: It is served already, a process does not start, or the deployments cannot be registered.
    """
    with _alone(), _told_to_end() as told:
        set_environment()
        api = f"http://{LOOPBACK}:{port}/api"
        os.environ["PREFECT_API_URL"] = api
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        logs = home() / "logs"
        children = [_server(port, environment, logs)]
        if mlflow_port is not None:
            children.append(_mlflow(mlflow_port, environment, logs))
        try:
            for child in children:
                child.start()
            for child in children:
                child.wait(START_SECONDS, unless=told.is_set)
            if told.is_set():
                return
            made = _deployed(file)
            workers = [_worker(pool, i, environment, logs) for pool, n in pools.items() for i in range(n)]
            for worker in workers:
                worker.start()
                children.append(worker)
            _reap()
            ready(Addresses(f"http://{LOOPBACK}:{port}", api, _address(mlflow_port), tuple(made)))
            watch(children, _until(told), lambda child: _reap() if child in workers else None)
        finally:
            stop(children)


def _server(port: int, environment: dict[str, str], logs: Path) -> Child:
    api = f"http://{LOOPBACK}:{port}/api"
    own = {
        # SQLite lets one write at a time; on a busy machine the others wait longer than Prefect lets them.
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        **environment,
        "PREFECT_SERVER_API_HOST": LOOPBACK,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_API_URL": api,
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    module = ("uvicorn", "--factory", "flows.serving.webserver:create_app", "--host", LOOPBACK, "--port", str(port))
    return Child("server", (*module, "--log-level", "warning"), own, logs, f"{api}/health")


def _mlflow(port: int, environment: dict[str, str], logs: Path) -> Child:
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    from flows.tracking.tracker import own_store  # fills the database in one go, which MLflow's server would not

    store = os.environ.get("MLFLOW_TRACKING_URI") or own_store(home().resolve() / "mlflow.db")
    artifacts = (home().resolve() / "mlflow-artifacts").as_uri()
    module = ("mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1")
    places = ("--backend-store-uri", store, "--default-artifact-root", artifacts)
    return Child("mlflow", (*module, *places), environment, logs, f"http://{LOOPBACK}:{port}/health")


def _worker(pool: str, number: int, environment: dict[str, str], logs: Path) -> Child:
    name = f"{HOST_NAME}-{pool}-{number + 1}"
    # How many runs there are at once the pool says: with a limit of its own a worker fails on a run that is resumed
    # right after it was suspended.
    module = ("prefect", "worker", "start", "--pool", pool, "--type", "process", "--name", name)
    own = {"PREFECT_WORKER_QUERY_SECONDS": "2", **environment, "PREFECT_LOGGING_LEVEL": "INFO"}
    return Child(f"worker-{pool}-{number + 1}", module, own, logs)


def _address(port: int | None) -> str | None:
    return None if port is None else f"http://{LOOPBACK}:{port}"


def _deployed(file: Path) -> list[str]:
    from flows.serving.deploying import deploy, read_file

    return deploy(read_file(file), many_machines=False)


def _until(told: threading.Event) -> Callable[[], bool]:
    """Whether to stop; looks after dead runs now and then meanwhile."""
    last = time.monotonic()

    def until() -> bool:
        nonlocal last
        if time.monotonic() - last > _REAP_SECONDS:
            last = time.monotonic()
            _reap()
        return told.is_set()

    return until


def _reap() -> None:
    import httpx
    from prefect.exceptions import PrefectException

    from flows.serving.reaping import reschedule_dead

    try:
        for name in reschedule_dead():
            log.warning("The process of the run %s was gone; the run is scheduled again.", name)
    except (httpx.HTTPError, PrefectException) as error:  # the server is being started again
        log.info("Dead runs could not be looked for (%s).", error)


@contextmanager
def _alone() -> Iterator[None]:
    """Refuses a second one on the same folder, whose workers would take each other's names."""
    home().mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(home() / ".serving.lock", timeout=0):
            yield
    except Timeout as error:
        raise ContransError(
            f"`contrans serve` runs already on {home()}; end it first, or set CONTRANS_HOME to another folder."
        ) from error


@contextmanager
def _told_to_end() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set."""
    told = threading.Event()

    def tell(_signal: int, _frame: FrameType | None) -> Any:
        if told.is_set():  # a second time: at once
            sys.exit(130)
        told.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
