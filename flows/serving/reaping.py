"""Runs whose process is gone: put back into their queue, where any worker takes them up."""

import os
import socket
from typing import Any

HOST_TAG = "host:"
HOST = f"{HOST_TAG}{socket.gethostname()}"
"""Tag of a run on this machine."""
MOST_STARTS = 5
"""How often a run is started at most: one that ends its machine would do so for ever."""


def reschedule_dead() -> list[str]:
    """Schedules deployed runs of this machine again whose process does not exist any more.

    What such a run did stays done, so that the next worker goes on after it. A run that was started `MOST_STARTS` times
    is noted as crashed instead, as are the runs within a dead one.

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

    running = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    deployed = FlowRunFilterDeploymentId(is_null_=False)
    found: list[str] = []
    with get_client(sync_client=True) as client:

        def alive_on_the_server(**more: Any) -> list[Any]:
            return client.read_flow_runs(flow_run_filter=FlowRunFilter(state=running, **more))

        for run in alive_on_the_server(deployment_id=deployed, tags=FlowRunFilterTags(all_=[HOST])):
            if not _is_gone(run.infrastructure_pid):
                continue
            for inner in alive_on_the_server(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id])):
                client.set_flow_run_state(inner.id, Crashed(message="The process is gone."), force=True)
            if run.run_count >= MOST_STARTS:
                state = Crashed(message=f"The process was gone {run.run_count} times.")
            else:
                state = AwaitingRetry(message="The process is gone; another one goes on.")
            client.set_flow_run_state(run.id, state, force=True)
            found.append(run.name)
    return found


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
