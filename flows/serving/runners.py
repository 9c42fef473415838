"""Where the pipelines of a matrix or sweep run, by one setting: here in threads, on Dask, on Ray, or on workers."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contrans.errors import SpecError

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

SETTING, WORKERS = "CONTRANS_TASK_RUNNER", "CONTRANS_TASK_WORKERS"
RUNNERS = ("threads", "dask", "ray")
HANDED_OUT = "workers"
"""Beside the runners: every pipeline is a run of its own, for whichever worker of a work pool takes it up."""
_CELL = "cell/on-demand"


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
        names = ", ".join((*RUNNERS, HANDED_OUT))
        raise SpecError(f"{wanted!r} is no task runner; set {SETTING} to {names}, dask:ADDRESS or workers:FLOW/NAME.")
    if kind == "threads":
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner(max_workers=n)
    return _dask(address, n) if kind == "dask" else _ray(address, n)


def handed_to(name: str | None = None) -> str | None:
    """The deployment that pipelines are handed to where the setting is "workers"; None for a task runner.

    Args:
        name: "workers", with a deployment as "flow/name" behind a colon if wanted, such as "workers:cell/on-gpu"; by
            default that of the variable `CONTRANS_TASK_RUNNER`.
    """
    kind, _, deployment = (name or os.environ.get(SETTING) or "").partition(":")
    return (deployment or _CELL) if kind == HANDED_OUT else None


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
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
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
