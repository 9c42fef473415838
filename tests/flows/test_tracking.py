"""MLflow: what it is told of a run, by parent and children; and what becomes of a run while MLflow is down."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from flows.tracking import Note, Tracker, note_of
from flows.tracking.waiting import put_by, waiting_folder
from tests.flows.conftest import Done

DYING = """
import os, sys, time
from pathlib import Path
from flows.tracking import Tracker
places = [Path(os.environ["CONTRANS_HOME"]) / name for name in (".mlflow.db.part", "mlflow.db")]
tracker = Tracker()
while tracker._thread.is_alive():
    if any(path.exists() and path.stat().st_size > 300_000 for path in places):
        os._exit(7)  # tables are half made
    time.sleep(0.002)
"""


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def told(tracker: Tracker, document: dict[str, Any], run_id: str) -> str | None:
    tags = {"contrans.run_id": run_id}
    return tracker.track({**document, "run": {**document["run"], "id": run_id}}, started=100.0, tags=tags, files={})


def client_of(tracker: Tracker) -> MlflowClient:
    tracker._thread.join()
    assert tracker._client is not None, tracker._failure
    return tracker._client


def runs(client: MlflowClient) -> list[Any]:
    experiment = client.get_experiment_by_name("contrans")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_a_run_that_ends_while_the_database_is_filled_does_no_harm(own_home: Path) -> None:
    assert subprocess.run([sys.executable, "-c", DYING], check=False).returncode == 7
    assert not (own_home / "mlflow.db").exists()
    tracker = Tracker()
    assert [experiment.name for experiment in client_of(tracker).search_experiments()] == ["contrans", "Default"]
    with sqlite3.connect(own_home / "mlflow.db") as database:
        assert database.execute("select count(*) from experiments").fetchone() == (2,)
    assert {path.name for path in own_home.iterdir()} <= {"mlflow.db", "mlflow.db.lock", "mlflow-artifacts"}


def test_notes_come_back_from_json(done: Done) -> None:
    note = note_of(done.found, started=1.0, ended=2.0, tags={"a": "b"}, files={"x.png": b"\x89\x00"})
    assert Note.from_json(json.loads(json.dumps(note.to_json()))).to_json() == note.to_json()
    assert note.files["x.png"] == b"\x89\x00"


def test_each_concept_has_a_run_below_the_pipelines(
    own_home: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRANS_MLFLOW_MODELS", "1")
    tracker = Tracker()
    parent = told(tracker, done.found, "run-1")
    client = client_of(tracker)
    below = {r.data.tags["contrans.concept"]: r for r in runs(client) if "mlflow.parentRunId" in r.data.tags}
    rows = [r for r in done.found["validations"] if r["split"] != "dev" and r["protocol"] == "emotion"]
    assert set(below) == {r["concept"] for r in rows} - {"all"}
    assert {r.data.tags["mlflow.parentRunId"] for r in below.values()} == {parent}
    for concept, run in below.items():
        for row in rows:
            if row["concept"] == concept:
                assert run.data.metrics[f"{row['arm']}/{row['metric']}"] == row["value"]
        [transplant] = [
            v["ref"]
            for v in done.found["versions"]
            if v["kind"] == "transplant" and v["name"].startswith(f"{concept}/")
        ]
        assert run.data.tags["contrans.transplant"] == transplant
        name = f"contrans.{transplant.partition('@')[0].replace('/', '.')}"
        assert [v.run_id for v in client.search_model_versions(f"name = '{name}'")] == [run.info.run_id]
    inputs = client.get_run(str(parent)).inputs.dataset_inputs
    versions = {f"{v['kind']}:{v['ref']}": v for v in done.found["versions"] if v["kind"] in ("text_set", "model")}
    assert {i.dataset.source for i in inputs} == set(versions)
    assert all(versions[i.dataset.source]["digest"].startswith(i.dataset.digest) for i in inputs)


def test_a_run_half_told_is_told_once(own_home: Path, done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker()
    client = client_of(tracker)
    log_inputs, calls = client.log_inputs, []

    def broken(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("the line was cut")
        log_inputs(*arguments)

    monkeypatch.setattr(client, "log_inputs", broken)
    assert told(tracker, done.found, "run-1") is None
    assert [p.name for p in waiting_folder().glob("*.json")] == ["run-1.json"]
    second = told(tracker, done.found, "run-2")
    assert second is not None
    names = [r.info.run_name for r in runs(client) if "mlflow.parentRunId" not in r.data.tags]
    assert sorted(names) == ["run-1", "run-2"]
    assert set(tracker.told) == {"run-1"}
    assert not list(waiting_folder().glob("*.json"))


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(tmp_path: Path, port: int) -> Iterator[str]:
    """A tracking server of its own, with its own artifacts."""
    place = tmp_path / "server"
    place.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{place / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(place / "artifacts")]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 120
        while True:
            assert process.poll() is None, (place / "log").read_text()[-2000:]
            assert time.monotonic() < until, "MLflow's server does not answer"
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.3)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def test_a_server_that_is_down_is_told_when_it_answers(
    own_home: Path,
    done: Done,
    port: int,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert told(Tracker(), done.found, "run-1") is None
    assert "it waits, and the next run that finds MLflow tells it" in caplog.text
    request.getfixturevalue("server")
    tracker = Tracker()
    second = told(tracker, done.found, "run-2")
    parents = {r.info.run_name: r for r in runs(client_of(tracker)) if "mlflow.parentRunId" not in r.data.tags}
    assert set(parents) == {"run-1", "run-2"}
    assert (parents["run-2"].info.run_id, tracker.told) == (second, {"run-1": parents["run-1"].info.run_id})
    assert {a.path for a in client_of(tracker).list_artifacts(str(second))} == {"spec.yaml", "results.json"}


def test_a_spoilt_note_is_named_and_does_no_harm(own_home: Path, done: Done, caplog: pytest.LogCaptureFixture) -> None:
    path = put_by(note_of(done.found, started=1.0, ended=2.0))
    assert path is not None
    path.write_text("{")
    assert told(Tracker(), done.found, "run-1") is not None
    assert f"{path} is no note of a run" in caplog.text
