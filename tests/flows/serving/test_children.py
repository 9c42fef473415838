"""Processes that serve: ended with their parent however it ends, started again when they die, and not for ever."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contrans.errors import ContransError
from flows.serving.children import Child, stop, watch
from flows.serving.machine import free_port

SLEEPER = "import pathlib, os, time; pathlib.Path(os.environ['NOTE']).write_text(str(os.getpid())); time.sleep(600)"
PARENT = """
import pathlib, sys, time
from flows.serving.children import Child
import os
child = Child("sleeper", ["sleeper"], dict(os.environ), pathlib.Path(sys.argv[1]))
child.start()
time.sleep(600)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Modules `sleeper`, which sleeps, and `dying`, which dies at once with a word."""
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "dying.py").write_text("raise SystemExit('the port is taken')")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path, "NOTE": str(tmp_path / "pid")}


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def noted(folder: Path) -> int:
    until(lambda: (folder / "pid").exists() and (folder / "pid").read_text() != "")
    return int((folder / "pid").read_text())


def test_a_child_ends_with_a_parent_that_is_killed(tmp_path: Path, environment: dict[str, str]) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env=environment)
    pid = noted(tmp_path)
    assert runs(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not runs(pid))


def test_what_an_ended_child_leaves_is_ended_too(tmp_path: Path, environment: dict[str, str]) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER
    (tmp_path / "deaf.py").write_text(deaf)
    (tmp_path / "leaving.py").write_text(
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-m', 'deaf']); time.sleep(600)"
    )
    child = Child("leaving", ["leaving"], environment, tmp_path)
    child.start()
    pid = noted(tmp_path)
    stop([child])
    until(lambda: not runs(pid))
    assert not child.died()


def test_one_that_dies_is_started_again(tmp_path: Path, environment: dict[str, str]) -> None:
    child = Child("sleeper", ["sleeper"], environment, tmp_path / "logs")
    child.start()
    first = noted(tmp_path)
    (tmp_path / "pid").unlink()
    os.kill(first, signal.SIGKILL)
    revived: list[str] = []
    watch([child], lambda: bool(revived), lambda one: revived.append(one.name))
    second = noted(tmp_path)
    assert revived == ["sleeper"]
    assert second != first
    stop([child])
    assert not runs(second)
    stop([child])  # twice does no harm


def test_one_that_dies_whenever_it_is_started_is_given_up(tmp_path: Path, environment: dict[str, str]) -> None:
    child = Child("worker", ["dying"], environment, tmp_path / "logs")
    child.start()
    with pytest.raises(ContransError, match=r"dies whenever it is started: the port is taken\."):
        watch([child], lambda: False, lambda _: None)
    assert len(child.deaths) == 4


def test_one_that_does_not_come_up_says_why(tmp_path: Path, environment: dict[str, str]) -> None:
    child = Child("server", ["dying"], environment, tmp_path / "logs", health="http://127.0.0.1:9/health")
    child.start()
    with pytest.raises(ContransError, match=r"The server did not start: the port is taken\. See .*server\.log\."):
        child.wait(60)


def test_a_port_that_is_taken() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port, insist=False) != port
        with pytest.raises(ContransError, match=str(port)):
            free_port(port, insist=True)
    assert free_port(0, insist=False) > 0
