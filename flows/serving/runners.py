"""Where the pipelines of a matrix or sweep run: in threads of this process, on Dask or on Ray, by one setting."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contrans.errors import SpecError

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

SETTING, WORKERS = "CONTRANS_TASK_RUNNER", "CONTRANS_TASK_WORKERS"
RUNNERS = ("threads", "dask", "ray")


def task_runner(name: str | None = None, *, workers: int | None = None) -> "TaskRunner[Any]":
    """The task runner of a name.

    Args:
        name: "threads", "dask" or "ray", the latter two with the address of a running cluster behind a colon if wanted,
            such as "dask:tcp://10.0.0.1:8786"; by default that of the variable `CONTRANS_TASK_RUNNER`, or threads.
        workers: how many pipelines run at once where no cluster says so, by default `CONTRANS_TASK_WORKERS` or 1: each
            holds its own models in memory.

    Raises:
        SpecError: there is no such runner, its library is not installed, or the number is none.
    """
    wanted = name or os.environ.get(SETTING) or "threads"
    kind, _, address = wanted.partition(":")
    n = workers if workers is not None else _workers()
    if kind not in RUNNERS or (kind == "threads" and address):
        raise SpecError(f"{wanted!r} is no task runner; set {SETTING} to {', '.join(RUNNERS)} or dask:ADDRESS.")
    if kind == "threads":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=n)
    return _dask(address, n) if kind == "dask" else _ray(address, n)


def _dask(address: str, workers: int) -> "TaskRunner[Any]":
    try:
        from prefect_dask.task_runners import DaskTaskRunner  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing("dask") from error
    if address:
        return DaskTaskRunner(address=address)
    # A process for each pipeline: their models are used by one thread.
    cluster: Mapping[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs=dict(cluster))


def _ray(address: str, workers: int) -> "TaskRunner[Any]":
    try:
        from prefect_ray.task_runners import RayTaskRunner  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise _missing("ray") from error
    if address:
        return RayTaskRunner(address=address)
    return RayTaskRunner(init_kwargs={"num_cpus": workers, "include_dashboard": False})


def _missing(kind: str) -> SpecError:
    return SpecError(f"The task runner {kind} is not installed; install it with `pip install 'contrans[{kind}]'`.")


def _workers() -> int:
    text = os.environ.get(WORKERS) or "1"
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise SpecError(f"{WORKERS} is {text!r}; set it to a whole number from 1 on.")
    return int(text)
