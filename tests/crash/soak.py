"""Many short scheduled runs on one served machine, and what they leave: `python -m tests.crash.soak --runs 500`.

A night's refresh is a run of a few seconds where nothing has changed, so 500 of them one after another stand for more
than a year of nights. Prints, as JSON, what grew: memory, handles, temporary files, processes.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Scheduled

from tests.flows.serving.machines import processes
from tests.flows.tiny_pipeline import write

_PROGRAM = "from flows.cli import main; main()"
_ROOT = Path(__file__).parents[2]
_AT_ONCE = 2
_PATIENCE = 600.0


@dataclass(frozen=True)
class Sample:
    """What a served machine holds between two runs.

    Attributes:
        memory: MiB of each process that lives on, by what it is.
        handles: open files of each.
        processes: how many there are.
        temporary: files and folders in the folder for temporary files.
    """

    memory: dict[str, float]
    handles: dict[str, int]
    processes: int
    temporary: int


@dataclass(frozen=True)
class Report:
    """What came of it; `grown` has medians over the second quarter of the samples and over the last one.

    Attributes:
        runs: how many ended.
        failed: names of the states of those that did not complete.
        hours: it took.
        grown: of each number of a sample its early and its late value.
        left_over: processes that outlived the server's end.
    """

    runs: int
    failed: list[str]
    hours: float
    grown: dict[str, tuple[float, float]]
    left_over: list[str]


def soak(folder: Path, *, runs: int, every: int = 10) -> Report:
    """Serves a machine, lets scheduled runs come one after another, and watches.

    Args:
        folder: an empty folder.
        runs: how many.
        every: runs between two samples.

    Raises:
        RuntimeError: the machine could not be served, or a run did not end.
    """
    spec, home = write(folder / "tiny"), folder / "home"
    (folder / "tmp").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CONTRANS_"))}
    environment |= {"CONTRANS_HOME": str(home), "CONTRANS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment |= {"TMPDIR": str(folder / "tmp"), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    start, failed, samples = time.monotonic(), [], []
    with _served(environment, folder) as api, SyncPrefectClient(api) as client:
        refine = client.read_deployment_by_name("refine/on-demand").id

        def ask() -> FlowRun:
            at = datetime.now(UTC) + timedelta(seconds=1)
            return client.create_flow_run_from_deployment(
                refine, parameters={"spec": str(spec)}, state=Scheduled(scheduled_time=at)
            )

        waiting = [ask() for _ in range(min(_AT_ONCE, runs))]
        for number in range(1, runs + 1):
            state = _ended(client, waiting.pop(0))
            failed += [state] if state != "Completed" else []
            if number + len(waiting) < runs:
                waiting.append(ask())
            if number % every == 0:
                samples.append(_sample(home, folder / "tmp"))
    return Report(
        runs=runs,
        failed=failed,
        hours=round((time.monotonic() - start) / 3600, 2),
        grown=_grown(samples),
        left_over=list(processes(home).values()),
    )


@contextmanager
def _served(environment: dict[str, str], folder: Path) -> Iterator[str]:
    command = [sys.executable, "-c", _PROGRAM, "serve", "--json", "--port", "0", "--mlflow-port", "0"]
    with (folder / "serve.log").open("w+", encoding="utf-8") as err:
        process = subprocess.Popen(
            [*command, "--gpu-workers", "0"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            cwd=_ROOT,
        )
        assert process.stdout is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"Nothing was served: {(folder / 'serve.log').read_text(encoding='utf-8')[-2000:]}")
            text += line
        try:
            yield json.loads(text)["api"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_PATIENCE)


def _ended(client: SyncPrefectClient, run: FlowRun) -> str:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        state = client.read_flow_run(run.id).state
        if state is not None and state.is_final():
            return state.name or state.type.value
        time.sleep(0.5)
    raise RuntimeError(f"The run {run.name} did not end within {_PATIENCE:.0f} s.")


_PARTS = {"flows.serving.webserver": "server", "worker start": "worker", " serve --json": "serve", "mlflow": "mlflow"}


def _sample(home: Path, temporary: Path) -> Sample:
    memory: dict[str, float] = {}
    handles: dict[str, int] = {}
    running = processes(home)
    for pid, words in running.items():
        part = next((name for word, name in _PARTS.items() if word in words), None)
        if part is None:
            continue
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
            held = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
        memory[part] = memory.get(part, 0.0) + pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        handles[part] = handles.get(part, 0) + held
    return Sample(memory, handles, len(running), sum(1 for _ in temporary.rglob("*")))


def _grown(samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples[:1], samples[-quarter:]
    numbers: dict[str, Any] = {
        **{f"MiB of {part}": lambda s, part=part: s.memory.get(part, 0.0) for part in _PARTS.values()},
        **{f"handles of {part}": lambda s, part=part: s.handles.get(part, 0) for part in _PARTS.values()},
        "processes": lambda s: s.processes,
        "temporary files": lambda s: s.temporary,
    }
    return {name: (round(median(map(of, early)), 1), round(median(map(of, late)), 1)) for name, of in numbers.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and prints a report."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--every", type=int, default=10, help="runs between two samples")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = soak(Path(folder), runs=given.runs, every=given.every)
    sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")


if __name__ == "__main__":
    main()
