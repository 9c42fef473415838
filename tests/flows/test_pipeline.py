"""The flow as a whole, on two tiny models: results, caching, kills, ids, failures beside it."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from contrans.validation.outcomes import Outcomes
from flows.results import RESULTS, ROW
from registry import Registry
from tests.flows.conftest import Done, Runner

KILL = """
import os, signal
from {module} import {owner}
original, calls = {owner}.{method}, [0]
def killed(self, *args, **kwargs):
    calls[0] += 1
    if calls[0] == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args, **kwargs)
{owner}.{method} = killed
"""


def digest(home: Path) -> str:
    with Registry.open(home / "registry.db") as registry:
        assert registry.check() == []
        return registry.content_digest()


def test_document_has_all_that_is_documented(done: Done) -> None:
    found = done.found
    assert set(found) == {"spec", "timings", "versions", "steps", "run", *RESULTS}
    assert all(set(row) == set(ROW) for row in found["validations"])
    assert {row["metric"] for row in found["validations"]} >= {"logit_accuracy", "token_accuracy", "kl"}
    assert {row["arm"] for row in found["validations"]} == set(found["spec"]["validate"]["arms"])
    assert set(found["summary"]["gain_recovered"]) == {"value", "low", "high"}
    assert set(found["map"]) == {"estimator", "lambda", "heldout_r2", "survival"}
    assert 0 < found["match_rate"] <= 1
    assert found["steps"]["cached"] == []
    assert set(found["timings"]) == {*found["steps"]["computed"], "prepare models", "register", "track"}
    assert all(seconds >= 0 for seconds in found["timings"].values())
    assert {v["kind"] for v in found["versions"]} == {
        "model",
        "text_set",
        "vector",
        "map",
        "transplant",
        "validation",
    }


def test_stdout_is_data_and_stderr_is_talk(done: Done) -> None:
    assert "transplanted" in done.process.stdout
    assert "logit accuracy by concept" in done.process.stdout
    assert "Not significant" in done.process.stdout
    assert "✓ validate" in done.process.stderr
    assert "contrans list" in done.process.stderr
    assert done.process.stderr.rstrip().splitlines()[-1].startswith("browse ")
    for noise in ("prefect", "mlflow", "alembic", "INFO", "Traceback"):
        assert noise not in done.process.stderr.replace(str(done.home), "")
    assert Path(done.found["run"]["figure"]).read_bytes().startswith(b"\x89PNG")


def test_ids_are_linked_both_ways(done: Done) -> None:
    ids = done.found["run"]
    with Registry.open(done.home / "registry.db") as registry:
        run = next(run for run in registry.runs() if run.id == ids["id"])
        linked = {version.digest for version in registry.run_versions(run.id)}
    assert run.state == "completed"
    assert (run.flow_run_id, run.mlflow_run_id) == (ids["flow_run_id"], ids["mlflow_run_id"])
    assert run.spec == done.found["spec"]
    assert linked == {version["digest"] for version in done.found["versions"]}
    with sqlite3.connect(done.home / "mlflow.db") as mlflow:
        where = "where run_uuid = ?"
        tags = dict(mlflow.execute(f"select key, value from tags {where}", [ids["mlflow_run_id"]]))
        params = dict(mlflow.execute(f"select key, value from params {where}", [ids["mlflow_run_id"]]))
        metrics = dict(mlflow.execute(f"select key, value from metrics {where}", [ids["mlflow_run_id"]]))
    assert tags["contrans.run_id"] == ids["id"]
    assert tags["prefect.flow_run_id"] == ids["flow_run_id"]
    refs = [version["ref"] for version in done.found["versions"] if version["kind"] == "transplant"]
    assert tags["contrans.transplant"] == ", ".join(refs)
    assert params["validate.random_draws"] == "2"
    assert metrics["summary/transplanted"] == done.found["summary"]["transplanted"]["value"]
    own = (done.home / "mlflow-artifacts").glob(f"**/{ids['mlflow_run_id']}/**/*")
    artifacts = {path.name for path in own if path.is_file()}
    assert artifacts == {"spec.yaml", "results.json", "accuracy_by_dose.png"}


def test_a_validation_keeps_what_was_right_on_each_item(done: Done) -> None:
    rows = {(r["concept"], r["arm"], r["metric"], r["split"]): r for r in done.found["validations"]}
    with Registry.open(done.home / "registry.db") as registry:
        for version in registry.list("validation"):
            kept = Outcomes.from_json(json.loads(registry.read(version, "items.json")))
            concept = version.manifest["concept"]
            assert kept.arms.keys() == set(done.found["spec"]["validate"]["arms"])
            for arm, by_concept in kept.arms.items():
                row = rows[concept, arm, kept.effect, "test"]
                assert np.nanmean(by_concept[concept]) == pytest.approx(row["value"])
                assert np.isfinite(by_concept[concept]).sum() == row["n"]


def test_second_run_recomputes_nothing_on_a_server_of_its_own(contrans: Runner, done: Done, spec_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done.home / "steps").rglob("*")}
    content = digest(done.home)
    process = contrans(done.home, "run", spec_path, "--json", "-", "--quiet", PREFECT_API_URL="")
    assert (process.returncode, process.stderr) == (0, "")
    again = json.loads(process.stdout)
    assert again["steps"]["computed"] == []
    assert again["steps"]["cached"] == done.found["steps"]["computed"]
    assert {path: path.stat().st_mtime_ns for path in (done.home / "steps").rglob("*")} == before
    same = [key for key in done.found if key not in ("timings", "steps", "run", "versions")]
    assert [again[key] for key in same] == [done.found[key] for key in same]
    assert [v["digest"] for v in again["versions"]] == [v["digest"] for v in done.found["versions"]]
    assert again["run"]["id"] != done.found["run"]["id"]
    assert again["run"]["mlflow_run_id"] not in (None, done.found["run"]["mlflow_run_id"])
    assert digest(done.home) == content


@pytest.mark.parametrize(
    ("module", "owner", "method", "at"),
    [
        ("flows.store", "Store", "write", 7),
        ("registry.blobs", "BlobStore", "put", 9),
        ("registry.blobs", "BlobStore", "ensure", 5),
    ],
    ids=["between steps", "while storing blobs", "while registering"],
)
def test_killed_run_resumes_to_the_same_registry(
    contrans: Runner,
    done: Done,
    spec_path: Path,
    tmp_path: Path,
    module: str,
    owner: str,
    method: str,
    at: int,
) -> None:
    kill = KILL.format(module=module, owner=owner, method=method, at=at)
    # MLflow fills an empty database in seconds that nobody needs here.
    uri = f"sqlite:///{done.home / 'mlflow.db'}"
    killed = contrans(tmp_path, "run", spec_path, "--quiet", code=kill, MLFLOW_TRACKING_URI=uri)
    assert killed.returncode == -9
    kept = [path.name for path in (tmp_path / "steps").glob("*/*")]
    steps = len(done.found["steps"]["computed"])
    assert len(kept) == (at - 1 if owner == "Store" else steps)
    with Registry.open(tmp_path / "registry.db") as registry:
        begun = len(registry.runs())
    # the first steps are done while the engine starts, and it may not have begun the run before the kill
    assert begun == 1 or owner == "Store"

    arguments = ("run", spec_path, "--json", tmp_path / "r.json")
    resumed = contrans(tmp_path, *arguments, MLFLOW_TRACKING_URI=uri)
    assert resumed.returncode == 0, resumed.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    assert len(found["steps"]["computed"]) == steps - len(kept)
    assert digest(tmp_path) == digest(done.home)
    with Registry.open(tmp_path / "registry.db") as registry:
        assert [run.state for run in registry.runs()] == ["completed", *["crashed"] * begun]


def test_output_gone_from_the_store_is_made_again_and_interrupt_ends_with_130(
    contrans: Runner, done: Done, spec_path: Path, tmp_path: Path
) -> None:
    interrupt = """
import shutil, os
from pathlib import Path
from flows import work
home = Path(os.environ["CONTRANS_HOME"])
def figure(*_):
    def run(context):
        raise KeyboardInterrupt
    return run
work.draw = figure
"""
    figure = next((done.home / "steps").glob("*/*/accuracy_by_dose.png")).parent
    figure.rename(tmp_path / "kept")
    try:
        process = contrans(done.home, "run", spec_path, code=interrupt)
    finally:
        (tmp_path / "kept").rename(figure)
    assert process.returncode == 130, process.stderr
    with Registry.open(done.home / "registry.db") as registry:
        assert registry.runs()[0].state == "cancelled"
