"""MLflow's own database: there whole or not at all, whenever a run ends."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from flows.tracking import Tracker

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


def test_a_run_that_ends_while_the_database_is_filled_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert subprocess.run([sys.executable, "-c", DYING], check=False).returncode == 7
    assert not (tmp_path / "mlflow.db").exists()
    tracker = Tracker()
    tracker._thread.join()
    assert tracker._failure is None
    assert tracker._client is not None
    assert [experiment.name for experiment in tracker._client.search_experiments()] == ["contrans", "Default"]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select count(*) from experiments").fetchone() == (2,)
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", "mlflow.db.lock", "mlflow-artifacts"}
