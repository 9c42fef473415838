"""Equal work at the same time is done once, by threads and by processes, also where one of them is killed."""

import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contrans.errors import ContransError
from flows.locks import Abandoned, to_compute
from flows.store import Store
from registry import Registry
from tests.flows.conftest import Done, Runner


def digest(home: Path) -> str:
    with Registry.open(home / "registry.db") as registry:
        assert registry.check() == []
        return registry.content_digest()


def test_threads_compute_once_and_leave_nothing(tmp_path: Path) -> None:
    store, computed, waited = Store(tmp_path / "steps"), [], []
    barrier = threading.Barrier(8)

    def work(number: int) -> bool:
        barrier.wait()
        with to_compute(store, "ab12", waits=lambda: waited.append(number)) as wanted:
            if wanted:
                time.sleep(0.2)
                store.write("ab12", {"out": str(number).encode()})
                computed.append(number)
            return wanted

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(work, range(8)))
    assert sum(found) == len(computed) == 1
    assert sorted([*waited, *computed]) == list(range(8))  # who waits says so once
    assert store.read("ab12")["out"] == str(computed[0]).encode()
    assert list(store.locks.iterdir()) == []


def test_work_that_fails_is_left_to_the_next(tmp_path: Path) -> None:
    store = Store(tmp_path / "steps")

    def fails() -> None:
        with to_compute(store, "ab12") as wanted:
            assert wanted
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with to_compute(store, "ab12") as wanted:
        assert wanted
    assert list(store.locks.iterdir()) == []


def test_what_a_killed_process_left_half_written_is_taken_away(tmp_path: Path) -> None:
    store = Store(tmp_path / "steps")
    parts = [store.folder / "ab" / f".{key}-x1y2" for key in ("ab12", "ab13")]
    for part in parts:
        part.mkdir(parents=True)
        (part / "out").write_bytes(b"half")
    with to_compute(store, "ab12") as wanted:
        assert wanted
        store.write("ab12", {"out": b"whole"})
    assert [part.exists() for part in parts] == [False, True]
    assert store.read("ab12") == {"out": b"whole"}


def test_different_keys_do_not_wait(tmp_path: Path) -> None:
    store = Store(tmp_path / "steps")
    with to_compute(store, "ab12"), to_compute(store, "ab13", waits=pytest.fail) as wanted:
        assert wanted


def test_waiting_can_be_given_up(tmp_path: Path) -> None:
    store, said = Store(tmp_path / "steps"), []

    def wait() -> None:
        with to_compute(store, "ab12", waits=lambda: said.append(1), abandoned=lambda: bool(said)):
            pytest.fail("nobody gave it up")

    with to_compute(store, "ab12"), ThreadPoolExecutor(1) as threads, pytest.raises(Abandoned):
        threads.submit(wait).result()
    assert said == [1]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path / "steps")
    store.locks.write_text("a file")
    with pytest.raises(ContransError, match="cannot be written"), to_compute(store, "ab12"):
        pass


def start(spec: Path, home: Path, log: Path, contrans: Runner, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.flows.locking", str(spec), str(home), str(log), *more]
    return subprocess.Popen(command, env=contrans.environment(home), cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("die_in", ["", "validate"])
def test_two_processes_do_the_work_once(
    contrans: Runner, done: Done, spec_path: Path, tmp_path: Path, die_in: str
) -> None:
    home, logs = tmp_path / "home", [tmp_path / f"{i}.log" for i in range(2)]
    first = start(spec_path, home, logs[0], contrans, die_in)
    second = start(spec_path, home, logs[1], contrans)
    assert first.wait(60) == (-9 if die_in and "computes validate" in logs[0].read_text() else 0)
    assert second.wait(60) == 0
    lines = [line for log in logs for line in log.read_text().splitlines()]
    finished = Counter(line.removeprefix("done ") for line in lines if line.startswith("done "))
    assert set(finished) == set(done.found["steps"]["computed"])
    assert set(finished.values()) == {1}
    kept = {path.name for path in (home / "steps").glob("*/*")}
    assert kept == {path.name for path in (done.home / "steps").glob("*/*")} & kept
    assert len(kept) == len(finished)
    assert list((home / "steps-in-use").iterdir()) == []


def test_two_runs_at_once_both_succeed_with_one_registry(
    contrans: Runner, done: Done, spec_path: Path, tmp_path: Path
) -> None:
    program = "from flows.cli import main\nmain()"
    uri = f"sqlite:///{done.home / 'mlflow.db'}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, "run", str(spec_path), "--json", str(tmp_path / f"{i}.json")],
            env=contrans.environment(tmp_path, MLFLOW_TRACKING_URI=uri),
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    computed = [line.split("  ")[1].strip("✓ ") for text in said for line in text.splitlines() if "✓" in line]
    assert sorted(computed) == sorted(done.found["steps"]["computed"])
    assert digest(tmp_path) == digest(done.home)
    with Registry.open(tmp_path / "registry.db") as registry:
        assert {run.state for run in registry.runs()} == {"completed"}
