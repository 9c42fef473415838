"""Machines that share a registry on PostgreSQL and S3: one is killed in the middle, the other one does its work."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.serving.reaping import reschedule_dead
from registry import Registry
from tests.flows.conftest import Done, Runner
from tests.flows.serving.machines import PATIENCE, processes, steps, until
from tests.flows.serving.test_refreshing import REFRESH, refreshed
from tests.registry.conftest import create_database, postgres_server  # noqa: F401  a fixture
from tests.registry.test_places import s3  # noqa: F401  a fixture

KILL = """
import os, signal
from registry.blobs import BlobStore
original, calls = BlobStore.put, [0]
def killed(self, *args, **kwargs):
    calls[0] += 1
    if calls[0] == 12:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args, **kwargs)
BlobStore.put = killed
from flows.cli import main
main()
"""


def test_nothing_is_lost_when_a_machine_is(
    contrans: Runner,
    done: Done,
    spec_path: Path,
    tmp_path: Path,
    postgres_server: str,  # noqa: F811
    s3: str,  # noqa: F811
) -> None:
    shared = places(postgres_server, s3, done)
    one, two = tmp_path / "one", tmp_path / "two"
    first = ["run", str(spec_path), "--quiet"]
    second = [*first, "--set", "seed=3"]
    running = [
        subprocess.Popen([sys.executable, "-c", code, *words], env=contrans.environment(home, **shared))
        for home, code, words in ((one, KILL, first), (two, "from flows.cli import main; main()", second))
    ]
    try:
        codes = [process.wait(300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert codes == [-9, 0]
    moved = contrans(two, *first, "--json", "-", **shared)
    assert moved.returncode == 0, moved.stderr
    found = json.loads(moved.stdout)
    # what does not hang on the seed was done for the other run, and is not done again
    assert set(found["steps"]["cached"]) >= {"refine · source", "capture corpus · target"}
    assert {v["digest"] for v in found["versions"]} == {v["digest"] for v in done.found["versions"]}
    with opened(shared) as registry:
        assert registry.check() == []
        states = sorted(run.state for run in registry.runs())
        assert states == ["completed", "completed", "running"]  # of the lost machine nobody knows
        numbers: dict[tuple[str, str], list[int]] = {}
        for version in registry.list():
            numbers.setdefault((version.kind, version.name), []).append(version.number)
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in numbers.values())
    assert all(len(found) == 1 for (kind, _), found in numbers.items() if kind in ("model", "text_set", "vector"))


def test_two_workers_share_a_refresh_and_one_of_them_is_killed(
    contrans: Runner,
    done: Done,
    spec_path: Path,
    tmp_path: Path,
    postgres_server: str,  # noqa: F811
    s3: str,  # noqa: F811
) -> None:
    pool = f"two-{uuid.uuid4().hex[:8]}"
    shared = {**places(postgres_server, s3, done), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    swept = spec_path.with_name("shared.yaml")
    seeds = {"name": "shared", "sweep": {"seed": [0, 1, 2]}}
    swept.write_text(yaml.safe_dump(yaml.safe_load(spec_path.read_text()) | seeds))
    deployments = tmp_path / "prefect.yaml"
    cell = {"name": pool, "entrypoint": "flows.serving.refreshing.cell", "work_pool": {"name": pool}}
    deployments.write_text(yaml.safe_dump({"definitions": {"work_pools": {pool: {}}}, "deployments": [cell]}))
    assert contrans(tmp_path, "deploy", "--file", deployments).returncode == 0

    homes = [tmp_path / "one", tmp_path / "two"]
    runner = {"CONTRANS_TASK_RUNNER": f"workers:cell/{pool}"}
    with (
        worker(contrans, pool, homes[0], shared),
        worker(contrans, pool, homes[1], shared),
    ):
        process = refresh(contrans, tmp_path / "head", swept, **shared, **runner)
        home = until(lambda: next((home for home in homes if steps(home)), None), before=process)
        lost = processes(home)  # with its run hardly begun
        assert any("worker start" in command for command in lost.values())
        assert any("prefect.engine" in command for command in lost.values())
        end(home)
        kept = steps(home)
        with temporary_settings({PREFECT_API_URL: contrans.prefect_url}):
            moved = until(reschedule_dead, before=process)
        points = json.loads(ended(process))["points"]
    assert [point["error"] for point in points] == [None] * 3
    assert points[0]["summary"]["gain_recovered"] == done.found["summary"]["gain_recovered"]
    assert len(moved) == 1
    assert steps(home) == kept  # that machine is gone, and the other one did the rest
    with opened(shared) as registry:
        assert registry.check() == []
        states = sorted(run.state for run in registry.runs())
        assert states in (["completed"] * 3, ["completed"] * 3 + ["running"])  # it may have died before it began one
        assert {v["digest"] for v in done.found["versions"]} <= {version.digest for version in registry.list()}
        digest = registry.content_digest()
    # nothing is lost and nothing is in it that is not in that of machines that nobody killed
    ended(refresh(contrans, tmp_path / "three", swept, **shared))
    with opened(shared) as registry:
        assert registry.content_digest() == digest


def test_pipelines_are_handed_to_a_deployment_that_exists(contrans: Runner, spec_path: Path, tmp_path: Path) -> None:
    nowhere = refreshed(contrans, tmp_path, spec_path, CONTRANS_TASK_RUNNER="workers:cell/nowhere")
    assert nowhere.returncode != 0
    assert "The server has no deployment 'cell/nowhere'" in nowhere.stderr


def places(postgres_server: str, s3: str, done: Done) -> dict[str, str]:  # noqa: F811
    """Variables by which machines share a registry, its blobs and MLflow."""
    return {
        "CONTRANS_REGISTRY": create_database(postgres_server, f"shared_{uuid.uuid4().hex}"),
        "CONTRANS_BLOBS": f"{s3}/{uuid.uuid4().hex}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{done.home / 'mlflow.db'}",
    }


def opened(shared: dict[str, str]) -> Registry:
    return Registry.open(shared["CONTRANS_REGISTRY"], blobs=shared["CONTRANS_BLOBS"])


@contextmanager
def worker(contrans: Runner, pool: str, home: Path, variables: dict[str, str]) -> Iterator[None]:
    """A Prefect worker that runs one thing at a time, with a folder of its own as another machine has."""
    home.mkdir()
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    environment = contrans.environment(home, **variables)
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--name", home.name, "--limit", "1"], env=environment, stdout=log, stderr=log
        )
        try:
            yield
        finally:
            end(home)
            process.wait()


def refresh(contrans: Runner, home: Path, spec: Path, **variables: str) -> "subprocess.Popen[str]":
    """Begins a refresh in a process of its own."""
    environment = contrans.environment(home, SPECS=json.dumps([str(spec)]), **variables)
    command = [sys.executable, "-c", REFRESH]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: "subprocess.Popen[str]") -> str:
    """What it printed, once it has ended well."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return out


def end(home: Path) -> None:
    """Ends a machine as a lost plug does."""
    for pid in processes(home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
