"""Pipelines handed to the workers of a work pool: each is a run of its own, which any of them takes up."""

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import AwaitingRetry, Cancelling

from contrans.errors import ContransError
from flows.runs import open_registry
from flows.serving.reaping import MOST_STARTS, pending_for
from flows.spec import PipelineSpec

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
PENDING_SECONDS = 3600.0
"""How long a worker may take to begin a run: it may have to fetch an image first, or wait for a machine."""
_HANDS_OUT = "refresh"
_KEPT = ("gain_recovered_of_concept",)  # of a summary in the registry: what it says of its own concept alone


@dataclass(frozen=True)
class Handed:
    """A pipeline that a worker runs.

    Attributes:
        run_id: its flow run.
        name: what the spec is called.
    """

    run_id: UUID
    name: str

    def result(self) -> dict[str, Any]:
        """Waits until it is done, through ends of workers and of the server.

        Returns:
            Its `summary` and `run`, as the registry has them.

        Raises:
            ContransError: it failed, was cancelled, or its process was gone too often.
        """
        while True:
            try:
                with get_client(sync_client=True) as client:
                    if self.look(client):
                        return _found(client, self.run_id, self.name)
            except httpx.HTTPError as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500:
                    raise
                log.info("The server does not answer (%s).", error)  # it is being started again
            time.sleep(POLL_SECONDS)

    def look(self, client: "SyncPrefectClient") -> bool:
        """Whether it is completed; one whose process is gone is put back into its queue.

        Raises:
            ContransError: as for `result`.
        """
        run = client.read_flow_run(self.run_id)
        state = run.state
        if state is None:
            return False
        if pending_for(run) > PENDING_SECONDS:
            log.warning("A worker took %s and never began it; it is scheduled again.", self.name)
            _again(client, run, "It was taken and never began; another worker takes it.")
        if not state.is_final():
            return False
        if state.is_completed():
            return True
        if state.is_crashed() and run.run_count < MOST_STARTS:
            log.warning("The process of %s was gone; it is scheduled again.", self.name)
            _again(client, run, "The process was gone; another one goes on.")
            return False
        raise ContransError(
            f"The run of {self.name} ended as {state.name}: {(state.message or 'without a word').strip()}"
        )


def hand_out(specs: list[PipelineSpec], deployment: str) -> list[Handed]:
    """Schedules a run of a deployment for each spec; those that this flow scheduled when it began before are found.

    They are no subflows: what ends this flow's process is not to end them.

    Args:
        specs: the pipelines.
        deployment: as "flow/name"; of a flow that takes a `spec`.

    Raises:
        ContransError: there is no such deployment, or its work pool has no room left beside the flows that wait.
    """
    own = flow_run.get_root_flow_run_id()
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound as error:
            raise ContransError(
                f"The server has no deployment {deployment!r} to hand pipelines to; make it with `contrans deploy`."
            ) from error
        _check_room(client, found)
        handed = []
        for spec in specs:
            run = client.create_flow_run_from_deployment(
                found.id,
                parameters={"spec": spec.canonical()},
                name=f"{spec.name}-{spec.hash[:8]}",
                idempotency_key=f"{own}-{spec.hash}",
            )
            if run.state is not None and run.state.is_final() and not run.state.is_completed():
                _again(client, run, "It is tried again.")
            handed.append(Handed(run.id, spec.name))
    return handed


def withdraw(handed: list[Handed]) -> None:
    """Cancels what is not done, where somebody cancelled this flow; else workers go on and it finds them later."""
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(UUID(flow_run.get_root_flow_run_id()))
        if own.state is None or not own.state.is_cancelling():
            return
        for one in handed:
            run = client.read_flow_run(one.run_id)
            if run.state is not None and not run.state.is_final():
                client.set_flow_run_state(run.id, Cancelling())


def _again(client: "SyncPrefectClient", run: FlowRun, why: str) -> None:
    client.set_flow_run_state(run.id, AwaitingRetry(message=why), force=True)


def _found(client: "SyncPrefectClient", run_id: UUID, name: str) -> dict[str, Any]:
    within = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))
    ids = {str(run.id) for run in client.read_flow_runs(flow_run_filter=within)}
    with open_registry() as registry:
        for run in registry.runs():
            if run.flow_run_id not in ids or run.state != "completed":
                continue
            judged = [v for v in registry.run_versions(run.id) if v.kind == "validation"]
            summary = {k: v for k, v in judged[0].manifest["summary"].items() if k not in _KEPT} if judged else {}
            said = {"id": run.id, "flow_run_id": run.flow_run_id, "mlflow_run_id": run.mlflow_run_id}
            return {"summary": summary, "run": {**said, "spec_hash": run.spec_hash, "figure": None}}
    raise ContransError(
        f"A worker ran {name}, but not into this registry; give all workers the same CONTRANS_REGISTRY and "
        f"CONTRANS_BLOBS."
    )


def _check_room(client: "SyncPrefectClient", deployment: "DeploymentResponse") -> None:
    """Refuses to wait for runs that no worker may begin, since flows that wait like this one hold all places."""
    if deployment.work_pool_name is None:
        raise ContransError(f"The deployment {deployment.name} has no work pool, so no worker runs it.")
    most = client.read_work_pool(deployment.work_pool_name).concurrency_limit
    if most is None:
        return
    running = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    waiting = client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[_HANDS_OUT])),
        flow_run_filter=FlowRunFilter(state=running),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[deployment.work_pool_name])),
    )
    if len(waiting) >= most:
        raise ContransError(
            f"The work pool {deployment.work_pool_name} runs {most} at once, and as many flows wait in it for the "
            "pipelines that they hand out; raise its limit, or name a deployment of another pool."
        )
