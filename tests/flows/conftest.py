"""One tiny pipeline on disk, one Prefect server, and one finished run for all tests of the flows."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.server import Server, set_environment
from tests.flows import tiny_pipeline

Finished = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def spec_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pipeline.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the finished run lies."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def prefect_url(home: Path) -> Iterator[str]:
    """A server for all runs: filling an empty database takes longer than a tiny pipeline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home / "prefect"))
        set_environment()
        server = Server()
        server.wait()
        yield server.url
        server.stop()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@dataclass
class Runner:
    """Runs the command line in processes of its own."""

    cache: Path
    prefect_url: str

    def environment(self, home: Path, **extra: str) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
        return {
            **clean,
            "CONTRANS_HOME": str(home),
            "CONTRANS_CACHE": str(self.cache),
            "PREFECT_API_URL": self.prefect_url,
            "OMP_NUM_THREADS": "1",
            **extra,
        }

    def __call__(self, home: Path, *arguments: str | Path, code: str = "", **extra: str) -> Finished:
        """Runs `contrans` with arguments, after some code if wanted; an empty variable is taken away."""
        program = f"{code}\nfrom flows.cli import main\nmain()"
        environment = {k: v for k, v in self.environment(home, **extra).items() if v}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="session")
def contrans(cache: Path, prefect_url: str) -> Runner:
    return Runner(cache, prefect_url)


@dataclass
class Done:
    """A finished run."""

    home: Path
    found: dict[str, Any]
    process: Finished


@pytest.fixture(scope="session")
def done(contrans: Runner, spec_path: Path, home: Path) -> Done:
    out = home / "results.json"
    process = contrans(home, "run", spec_path, "--json", out)
    assert process.returncode == 0, process.stderr
    return Done(home, json.loads(out.read_text()), process)


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Types a command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("CONTRANS_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "140")

    def type_(*arguments: str | Path, home: Path = tmp_path / "empty") -> tuple[int, str, str]:
        from flows.cli import main

        monkeypatch.setenv("CONTRANS_HOME", str(home))
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return ended.value.code if isinstance(ended.value.code, int) else 0, out, err

    return type_
