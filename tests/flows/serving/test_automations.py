"""Automations on a real server: a run that falls silent is scheduled again, and a day without a refresh has one."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
import yaml
from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Running

from flows.serving import deploying
from flows.serving.children import stop
from flows.serving.machine import _server, free_port
from tests.flows.serving.machines import until

EXAMPLES = Path(__file__).resolve().parents[3] / "deployments" / "automations.yaml"
WINDOW = timedelta(seconds=10)  # the shortest that Prefect has
PATIENCE = 240.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server as `contrans serve` starts it, which looks at its automations every second."""
    home, port = tmp_path_factory.mktemp("automations"), free_port(0, insist=False)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CONTRANS_"))}
    environment = {
        **clean,
        "CONTRANS_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "00:00:01",
    }
    child = _server(port, environment, home / "logs")
    child.start()
    try:
        child.wait(PATIENCE)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        stop([child])


def alive(api: str, run: UUID, deployment: UUID) -> None:
    """Sends the sign of life that a run gives."""
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "related": [{"prefect.resource.id": f"prefect.deployment.{deployment}", "prefect.resource.role": "deployment"}],
    }
    httpx.post(f"{api}/events", json=[event], timeout=60).raise_for_status()


def deployed(server: str, folder: Path, name: str) -> UUID:
    """Makes the deployment refresh/NAME, of a pool that has no worker, as `contrans deploy` does."""
    one = {"name": name, "entrypoint": "flows.serving.refreshing.refresh", "work_pool": {"name": "cpu"}}
    file = folder / "prefect.yaml"
    file.write_text(yaml.safe_dump({"definitions": {"work_pools": {"cpu": {}}}, "deployments": [one]}))
    with temporary_settings({PREFECT_API_URL: server}):
        assert deploying.deploy(deploying.read_file(file)) == [f"refresh/{name}"]
    with SyncPrefectClient(server) as client:
        return client.read_deployment_by_name(f"refresh/{name}").id


def test_a_run_that_falls_silent_is_scheduled_again(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploying, "SILENT_AFTER", WINDOW)
    deployment = deployed(server, tmp_path, "silent")
    with SyncPrefectClient(server) as client:
        runs = [client.create_flow_run_from_deployment(deployment, state=Running()).id for _ in range(3)]
        silent, living, over = runs

        def now(run: UUID) -> FlowRun:
            return client.read_flow_run(run)

        def state(run: UUID) -> str:
            found = now(run).state
            assert found is not None
            return found.name

        for run in runs:
            alive(server, run, deployment)
        client.set_flow_run_state(over, Completed())
        deadline = time.monotonic() + PATIENCE
        while state(silent) != "AwaitingRetry":
            assert time.monotonic() < deadline
            alive(server, living, deployment)
            time.sleep(1)
        assert (state(living), state(over)) == ("Running", "Completed")
        # one whose end is known is not expected to give signs of life
        end = time.monotonic() + 1.5 * WINDOW.total_seconds()
        while time.monotonic() < end:
            alive(server, living, deployment)
            time.sleep(1)
        assert (state(living), state(over)) == ("Running", "Completed")


def test_a_day_without_a_refresh_has_one_run(server: str, tmp_path: Path) -> None:
    deployment = deployed(server, tmp_path, "missed")
    _, example = yaml.safe_load(EXAMPLES.read_text())
    example["trigger"]["match_related"]["prefect.resource.id"] = f"prefect.deployment.{deployment}"
    example["trigger"]["within"] = WINDOW.total_seconds()
    example["actions"][0]["deployment_id"] = str(deployment)
    with SyncPrefectClient(server) as client:
        mine = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
        made = client.create_automation(AutomationCore.model_validate(example))
        try:
            assert until(lambda: client.read_flow_runs(deployment_filter=mine))
        finally:
            client.delete_automation(made)
