"""Runs that a machine took and never began are put back into their queue; those that may still begin are left."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending

from flows.serving.handing_out import Handed
from flows.serving.reaping import HOST_NAME, reschedule_dead
from tests.flows.conftest import Runner
from tests.flows.serving.machines import PATIENCE

Taken = tuple[SyncPrefectClient, FlowRun]


@pytest.fixture
def taken(contrans: Runner, tmp_path: Path) -> Iterator[Taken]:
    """A deployed run that a worker took, in a pool that has none any more."""
    pool = f"left-{tmp_path.name[-20:].replace('_', '-')}"
    deployments = tmp_path / "prefect.yaml"
    cell = {"name": pool, "entrypoint": "flows.serving.refreshing.cell", "work_pool": {"name": pool}}
    deployments.write_text(yaml.safe_dump({"definitions": {"work_pools": {pool: {}}}, "deployments": [cell]}))
    assert contrans(tmp_path, "deploy", "--file", deployments).returncode == 0
    with temporary_settings({PREFECT_API_URL: contrans.prefect_url}), get_client(sync_client=True) as client:
        run = client.create_flow_run_from_deployment(client.read_deployment_by_name(f"cell/{pool}").id)
        client.set_flow_run_state(run.id, Pending(), force=True)
        yield client, run


def labelled(taken: Taken, worker: str, pid: int | None = None) -> None:
    client, run = taken
    client.update_flow_run_labels(run.id, {"prefect.worker.name": worker})
    if pid is not None:
        client.update_flow_run(run.id, infrastructure_pid=str(pid))


def state(taken: Taken) -> str | None:
    client, run = taken
    found = client.read_flow_run(run.id).state
    return found and found.name


@pytest.fixture(scope="module")
def gone() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("began", [True, False], ids=["the process died", "no process was begun"])
def test_a_run_of_this_machine_is_taken_up_again(taken: Taken, gone: int, began: bool) -> None:
    name = taken[1].name
    labelled(taken, f"{HOST_NAME}-cpu-1", gone if began else None)
    assert name not in reschedule_dead(pending_seconds=PATIENCE)  # its process may yet begin
    assert state(taken) == "Pending"
    assert name in reschedule_dead(pending_seconds=0.0)
    assert state(taken) == "AwaitingRetry"
    assert name not in reschedule_dead(pending_seconds=0.0)


def test_a_run_that_no_worker_put_its_name_on_is_taken_up_again(taken: Taken) -> None:
    assert taken[1].name in reschedule_dead(pending_seconds=0.0)


def test_a_run_that_is_starting_is_left(taken: Taken) -> None:
    labelled(taken, f"{HOST_NAME}-cpu-1", os.getpid())
    assert taken[1].name not in reschedule_dead(pending_seconds=0.0)
    assert state(taken) == "Pending"


def test_a_run_of_another_machine_is_left_to_whoever_waits_for_it(
    taken: Taken, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(taken, "elsewhere-cpu-1", gone)
    assert taken[1].name not in reschedule_dead(pending_seconds=0.0)
    client, run = taken
    handed = Handed(run.id, "calm")
    handed.look(client)
    assert state(taken) == "Pending"
    monkeypatch.setattr("flows.serving.handing_out.PENDING_SECONDS", 0.0)
    assert not handed.look(client)
    assert state(taken) == "AwaitingRetry"
