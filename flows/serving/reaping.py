"""Runs whose process is gone: put back into their queue, where any worker takes them up."""

import os
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

HOST_NAME = socket.gethostname()
"""With it begin the names of this machine's workers."""
HOST_TAG = "host:"
HOST = f"{HOST_TAG}{HOST_NAME}"
"""Tag of a run on this machine."""
MOST_STARTS = 5
"""How often a run is started at most: one that ends its machine would do so for ever."""
_PENDING_SECONDS = 120.0  # a worker takes less to start a process here
_WORKER_LABEL = "prefect.worker.name"


def reschedule_dead(*, pending_seconds: float = _PENDING_SECONDS) -> list[str]:
    """Schedules deployed runs of this machine again whose process does not exist any more.

    What such a run did stays done, so that the next worker goes on after it. A run that was started `MOST_STARTS` times
    is noted as crashed instead, as are the runs within a dead one. A run that a worker took and then died, before there
    was a process, is scheduled again too.

    Args:
        pending_seconds: how long a run may be without a process after a worker took it.

    Returns:
        Names of the runs.
    """
    from prefect import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterParentFlowRunId,
        FlowRunFilterState,
        FlowRunFilterStateType,
        FlowRunFilterTags,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import AwaitingRetry, Crashed

    deployed = FlowRunFilterDeploymentId(is_null_=False)
    found: list[str] = []
    with get_client(sync_client=True) as client:

        def on_the_server(state: StateType = StateType.RUNNING, **more: Any) -> "list[FlowRun]":
            filter_ = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[state])), **more)
            return client.read_flow_runs(flow_run_filter=filter_)

        for run in on_the_server(StateType.PENDING, deployment_id=deployed):
            if _is_mine(run) and pending_for(run) > pending_seconds and not _may_begin(run):
                state = AwaitingRetry(message="It was taken and never began; another worker takes it.")
                client.set_flow_run_state(run.id, state, force=True)
                found.append(run.name)
        for run in on_the_server(deployment_id=deployed, tags=FlowRunFilterTags(all_=[HOST])):
            if not _is_gone(run.infrastructure_pid):
                continue
            for inner in on_the_server(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id])):
                client.set_flow_run_state(inner.id, Crashed(message="The process is gone."), force=True)
            if run.run_count >= MOST_STARTS:
                state = Crashed(message=f"The process was gone {run.run_count} times.")
            else:
                state = AwaitingRetry(message="The process is gone; another one goes on.")
            client.set_flow_run_state(run.id, state, force=True)
            found.append(run.name)
    return found


def pending_for(run: "FlowRun") -> float:
    """For how many seconds a worker has been about to begin a run; 0 in any other state."""
    if run.state is None or not run.state.is_pending():
        return 0.0
    return (datetime.now(UTC) - run.state.timestamp).total_seconds()


def _is_mine(run: "FlowRun") -> bool:
    """Whether a worker of this machine took it, or one that died before it could put its name on it."""
    worker = str(run.labels.get(_WORKER_LABEL, ""))
    return not worker or worker.startswith(f"{HOST_NAME}-")


def _may_begin(run: "FlowRun") -> bool:
    return bool(run.infrastructure_pid) and not _is_gone(run.infrastructure_pid)


def _is_gone(pid: str | None) -> bool:
    number = (pid or "").rpartition(":")[2]
    if not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(int(number))


def _is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  a path of the system
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return False
