"""Server, workers and UIs of `contrans serve`, for real: schedules, approval, cancelling, killed workers, the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Scheduled

from flows.serving.reaping import HOST
from registry import Registry
from registry.hub import publications
from tests.flows.conftest import Done, Runner
from tests.flows.serving.machines import PATIENCE, processes, steps, until
from tests.hub import server as hub_server


@dataclass
class Served:
    process: "subprocess.Popen[str]"
    home: Path
    at: dict[str, Any]
    client: SyncPrefectClient
    hub: hub_server.Hub

    def ask(self, deployment: str, *, ahead: float = 0.0, **parameters: Any) -> FlowRun:
        """Schedules a run of a deployment."""
        at = datetime.now(UTC) + timedelta(seconds=ahead)
        found = self.client.read_deployment_by_name(deployment)
        return self.client.create_flow_run_from_deployment(
            found.id, parameters=parameters, state=Scheduled(scheduled_time=at)
        )

    def wait(self, run: FlowRun, *states: str) -> FlowRun:
        """Waits until a run is in one of some states, or over."""

        def reached() -> FlowRun | None:
            now = self.client.read_flow_run(run.id)
            assert now.state is not None
            return now if now.state.name in states or now.state.is_final() else None

        found = until(reached)
        assert found.state is not None
        assert found.state.name in states, (found.state.name, found.state.message, logs(self.home))
        return found

    def steps(self) -> set[str]:
        return steps(self.home)


def logs(home: Path) -> str:
    return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in (home / "logs").glob("*.log"))


@pytest.fixture(scope="module")
def served(contrans: Runner, done: Done, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served") / "home"
    shutil.copytree(done.home, home, ignore=shutil.ignore_patterns("prefect", "runs"))
    with hub_server.running() as hub:
        environment = contrans.environment(
            home,
            HF_ENDPOINT=hub.url,
            HF_TOKEN=hub_server.WRITER,
            HF_HUB_DISABLE_XET="1",
            NO_PROXY="127.0.0.1",
            PREFECT_WORKER_QUERY_SECONDS="1",
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY="30",
        )
        for name in ("PREFECT_API_URL", "HF_HUB_OFFLINE"):
            environment.pop(name, None)
        command = [sys.executable, "-c", "from flows.cli import main; main()", "serve", "--json"]
        command += ["--port", "0", "--mlflow-port", "0", "--gpu-workers", "0"]
        with (home.parent / "stderr").open("w+") as err:
            process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=err, text=True)
            assert process.stdout is not None
            text = ""
            while not text.endswith("\n}\n"):
                line = process.stdout.readline()
                assert line, (home.parent / "stderr").read_text() + logs(home)
                text += line
            at = json.loads(text)
            with SyncPrefectClient(at["api"]) as client:
                yield Served(process, home, at, client, hub)
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE)


def test_uis_answer_and_everything_is_registered(served: Served) -> None:
    for address, word in ((served.at["prefect"], "<html"), (served.at["mlflow"], "<html")):
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert answer.status == 200
            assert word in answer.read().decode().lower()
    assert {"refresh/nightly", "revalidate/weekly", "publish/with-approval"} <= set(served.at["deployments"])
    pools = {pool.name: pool for pool in served.client.read_work_pools()}
    assert set(pools) >= {"cpu", "gpu"}
    assert served.client.read_global_concurrency_limit_by_name("gpu").limit == 1
    nightly = DeploymentFilter(name=DeploymentFilterName(any_=["nightly"]))

    def scheduled() -> list[FlowRun]:
        return served.client.read_flow_runs(deployment_filter=nightly)

    first = min(run.expected_start_time for run in until(scheduled) if run.expected_start_time is not None)
    assert (first.hour, first.minute) == (2, 0)
    assert timedelta(0) < first - datetime.now(UTC) <= timedelta(days=1)


def test_a_scheduled_run_starts_on_time(served: Served, spec_path: Path) -> None:
    asked = served.ask("refine/on-demand", ahead=12.0, spec=str(spec_path))
    done = served.wait(asked, "Completed")
    assert done.start_time is not None
    assert done.expected_start_time is not None
    states = served.client.read_flow_run_states(done.id)
    taken_up = min(state.timestamp for state in states if not state.is_scheduled())
    # A worker takes a run up some seconds early, so that Python is there when its time comes.
    assert (taken_up - done.expected_start_time).total_seconds() < 5
    assert (done.start_time - done.expected_start_time).total_seconds() > -1
    assert {"spec:tiny", HOST} <= set(done.tags)


def test_approval_publishes_what_was_asked_about(served: Served, done: Done) -> None:
    name = next(v["name"] for v in done.found["versions"] if v["kind"] == "transplant")
    asked = served.ask("publish/with-approval", name=name, to="org/concept")
    waiting = served.wait(asked, "Suspended")
    assert not served.hub.repos
    assert waiting.state is not None
    keyset = waiting.state.state_details.run_input_keyset
    assert keyset is not None
    schema = json.loads(served.client.read_flow_run_input(asked.id, keyset["schema"]))
    assert schema["properties"]["approve"] == {
        "default": False,
        "description": "Whether it may be published.",
        "title": "Approve",
        "type": "boolean",
    }
    question = json.loads(served.client.read_flow_run_input(asked.id, keyset["description"]))
    assert f"{name}@1" in question
    assert "gain recovered" in question
    with Registry.open(served.home / "registry.db") as registry:
        one = registry.get(f"{name}@1", "transplant")
        inputs = dict(registry.lineage(one, "up", depth=1).parents(one))
        newer = {**one.manifest, "note": "made while somebody thought about it"}
        assert registry.register("transplant", name, manifest=newer, inputs=inputs).number == 2
    served.client.resume_flow_run(asked.id, run_input={"approve": True, "note": "Looks right."})
    served.wait(asked, "Completed")
    assert set(served.hub.repos) == {"org/concept"}
    with Registry.open(served.home / "registry.db") as registry:
        assert [p.repo for p in publications(registry, registry.get(f"{name}@1", "transplant"))] == ["org/concept"]
        assert publications(registry, registry.get(f"{name}@2", "transplant")) == []


def test_rejection_publishes_nothing(served: Served, done: Done) -> None:
    name = [v["name"] for v in done.found["versions"] if v["kind"] == "transplant"][1]
    asked = served.ask("publish/with-approval", name=name, to="org/other")
    served.wait(asked, "Suspended")
    served.client.resume_flow_run(asked.id, run_input={"approve": False, "note": "Too weak."})
    over = served.wait(asked, "Rejected")
    assert over.state is not None
    assert over.state.is_completed()
    assert "Too weak." in (over.state.message or "")
    assert "org/other" not in served.hub.repos


def test_cancelled_run_leaves_nothing_half_written(served: Served, spec_path: Path) -> None:
    with Registry.open(served.home / "registry.db") as registry:
        before = registry.content_digest()
    settings = ["seed=5", "validate.random_draws=200000"]
    asked = served.ask("transplant/on-demand", spec=str(spec_path), settings=settings)
    have = served.steps()
    until(lambda: len(served.steps() - have) >= 2)
    served.client.set_flow_run_state(asked.id, Cancelling())
    served.wait(asked, "Cancelled")
    until(lambda: not processes(served.home, "prefect.engine"))
    with Registry.open(served.home / "registry.db") as registry:
        assert registry.content_digest() == before
        assert registry.check() == []
        assert registry.runs(limit=1)[0].state == "cancelled"
    assert not [path for path in (served.home / "steps").rglob("*") if path.name.startswith(".")]


def test_work_of_a_killed_worker_moves_on(served: Served, spec_path: Path) -> None:
    have = served.steps()
    asked = served.ask("transplant/on-demand", spec=str(spec_path), settings=["seed=6", "validate.random_draws=300"])
    until(lambda: len(served.steps() - have) >= 1)
    (worker,) = processes(served.home, "worker start")
    os.kill(worker, signal.SIGKILL)
    for pid in processes(served.home, "prefect.engine"):
        os.kill(pid, signal.SIGKILL)
    kept = {key: mtime(served.home, key) for key in served.steps() - have}
    done = served.wait(asked, "Completed")
    assert done.run_count == 2
    assert {key: mtime(served.home, key) for key in kept} == kept
    (another,) = processes(served.home, "worker start")
    assert another != worker
    with Registry.open(served.home / "registry.db") as registry:
        assert registry.check() == []
        states = [run.state for run in registry.runs() if run.spec["seed"] == 6]
    assert sorted(states) == ["completed", "crashed"]


def mtime(home: Path, key: str) -> list[int]:
    return sorted(path.stat().st_mtime_ns for path in (home / "steps" / key[:2] / key).iterdir())


def test_second_one_on_the_same_folder_is_refused(served: Served, contrans: Runner) -> None:
    second = contrans(served.home, "serve", "--port", "0", PREFECT_API_URL="")
    assert second.returncode == 2
    assert second.stderr.strip().splitlines()[-1].startswith("Error: `contrans serve` runs already on ")


def test_everything_ends_together(served: Served) -> None:
    assert len(processes(served.home)) >= 4
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(PATIENCE) == 0, (served.home.parent / "stderr").read_text()
    assert processes(served.home) == {}
