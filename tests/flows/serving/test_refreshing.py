"""Many pipelines at once: in threads, on Dask and on Ray they end in one registry; one that fails stops no other."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry import Registry
from tests.flows.conftest import Done, Finished, Runner

REFRESH = """
import json, os
from flows.cli.engine import engine
from flows.cli.talk import Talk
with engine(Talk(quiet=True)):
    from flows.serving.refreshing import refresh
    print(json.dumps(refresh(json.loads(os.environ["SPECS"]))))
raise SystemExit
"""


@pytest.fixture(scope="module")
def swept(spec_path: Path) -> Path:
    """The tiny pipeline, and the same with another seed."""
    spec = yaml.safe_load(spec_path.read_text()) | {"name": "swept", "sweep": {"seed": [0, 1]}}
    path = spec_path.with_name("swept.yaml")
    path.write_text(yaml.safe_dump(spec))
    return path


def refreshed(contrans: Runner, home: Path, *specs: Path, **variables: str) -> Finished:
    return contrans(home, code=REFRESH, SPECS=json.dumps([str(spec) for spec in specs]), **variables)


@pytest.mark.parametrize("runner", ["threads", "dask", "ray"])
def test_pipelines_side_by_side(contrans: Runner, done: Done, swept: Path, tmp_path: Path, runner: str) -> None:
    if importlib.util.find_spec(f"prefect_{runner}") is None and runner != "threads":
        pytest.skip(f"prefect-{runner} is not installed")
    uri = f"sqlite:///{done.home / 'mlflow.db'}"
    variables = {"CONTRANS_TASK_RUNNER": runner, "CONTRANS_TASK_WORKERS": "2", "MLFLOW_TRACKING_URI": uri}
    process = refreshed(contrans, tmp_path, swept, **variables)
    assert process.returncode == 0, process.stderr
    points: list[dict[str, Any]] = json.loads(process.stdout)["points"]
    assert [point["error"] for point in points] == [None, None]
    assert points[0]["summary"] == done.found["summary"]
    with Registry.open(tmp_path / "registry.db") as registry:
        assert registry.check() == []
        assert [run.state for run in registry.runs()] == ["completed"] * 2
        run = points[0]["run"]["id"]
        digests = {version.digest for version in registry.run_versions(run)}
    assert digests == {version["digest"] for version in done.found["versions"]}


def test_one_that_fails_does_not_stop_the_rest(contrans: Runner, done: Done, spec_path: Path, tmp_path: Path) -> None:
    spec = yaml.safe_load(spec_path.read_text()) | {"name": "broken"}
    spec["corpus"] = {**spec["corpus"], "wrapped": 4000}  # more than there are, which only the run finds out
    broken = spec_path.with_name("broken.yaml")
    broken.write_text(yaml.safe_dump(spec))
    process = refreshed(
        contrans, tmp_path, broken, spec_path, MLFLOW_TRACKING_URI=f"sqlite:///{done.home / 'mlflow.db'}"
    )
    assert process.returncode != 0
    assert "1 of 2 points of the sweep failed" in process.stderr
    assert "ask for fewer rows" in process.stderr
    with Registry.open(tmp_path / "registry.db") as registry:
        assert sorted(run.state for run in registry.runs()) == ["completed", "failed"]
