"""Two machines that share a registry on PostgreSQL and S3: one is killed in the middle, the other one does its work."""

import json
import subprocess
import sys
import uuid
from pathlib import Path

from registry import Registry
from tests.flows.conftest import Done, Runner
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
    url = create_database(postgres_server, f"shared_{uuid.uuid4().hex}")
    shared = {
        "CONTRANS_REGISTRY": url,
        "CONTRANS_BLOBS": f"{s3}/{uuid.uuid4().hex}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{done.home / 'mlflow.db'}",
    }
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
    with Registry.open(url, blobs=shared["CONTRANS_BLOBS"]) as registry:
        assert registry.check() == []
        states = sorted(run.state for run in registry.runs())
        assert states == ["completed", "completed", "running"]  # of the lost machine nobody knows
        numbers: dict[tuple[str, str], list[int]] = {}
        for version in registry.list():
            numbers.setdefault((version.kind, version.name), []).append(version.number)
    assert all(sorted(found) == list(range(1, len(found) + 1)) for found in numbers.values())
    assert all(len(found) == 1 for (kind, _), found in numbers.items() if kind in ("model", "text_set", "vector"))
