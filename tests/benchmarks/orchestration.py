"""What surrounds the steps of a run, and whether plans are true: whole runs, each in a process and home of its own.

A home is fresh but for MLflow's tables and Prefect's, which a first run fills once for all later ones; the models are
converted already. Every round runs another seed, plans right before it, and so compares under the same load.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .ratio import Benchmark, Ratio

SMALLER = ("corpus.wrapped=650", "corpus.truncated=650", "validate.test_per_label=12", "validate.random_draws=6")
"""The quickstart with half of its rows and a third of its scorings."""
OTHER = (
    "concepts=[civility]",
    "corpus.spread=300",
    "blocks.source=[24, 27]",
    "validate.curve_kl=true",
    "validate.arms=[unsteered, transplanted, own, random]",
)
"""Another concept, with a choice among blocks and KL along the curve."""


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        wall: Seconds of the whole process, from its start to its end.
        peak: Most bytes that it held.
        document: What it found; see `flows.results`.
    """

    wall: float
    peak: int
    document: dict[str, Any]

    @property
    def own(self) -> float:
        """Seconds of its steps: all but what tracking takes, and what lies before and between."""
        return sum(seconds for name, seconds in self.document["timings"].items() if name != "track")


def _contrans(home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    program = "from flows.cli import main; main()"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=environment | {"CONTRANS_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _settings(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def run(home: Path, settings: Sequence[str]) -> Run:
    """Runs the quickstart with settings as `contrans run` does.

    Raises:
        RuntimeError: It failed.
    """
    out = home / "results.json"
    start = time.perf_counter()
    process = _contrans(home, "run", "quickstart", "--json", str(out), *_settings(settings))
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise RuntimeError(f"The run failed: {said.decode(errors='replace')[-2000:]}")
    return Run(wall, usage.ru_maxrss * 1024, json.loads(out.read_text(encoding="utf-8")))


def plan(home: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Plans the same.

    Raises:
        RuntimeError: It failed.
    """
    program = "from flows.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "plan", "quickstart", "--json", *_settings(settings)],
        env=os.environ | {"CONTRANS_HOME": str(home)},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"The plan failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return json.loads(done.stdout)


@cache
def _compared(rounds: int) -> tuple[tuple[Run, dict[str, Any]], ...]:
    """Runs and their plans; of `rounds` every other one is of the other settings."""
    pairs = []
    for number in range(rounds):
        settings = [*(SMALLER, (*SMALLER, *OTHER))[number % 2], f"seed={number}"]
        with tempfile.TemporaryDirectory() as folder:
            planned = plan(Path(folder), settings)
            pairs.append((run(Path(folder), settings), planned))
    return tuple(pairs)


def _planner_time(rounds: int) -> Ratio:
    pairs = _compared(rounds)
    walls, predicted = (tuple(of) for of in zip(*((r.wall, p["seconds"]) for r, p in pairs), strict=True))
    return Ratio(tuple(w / p for w, p in zip(walls, predicted, strict=True)), predicted, walls)


def _planner_memory(rounds: int) -> Ratio:
    pairs = _compared(rounds)
    notes = {"peak_gb": max(r.peak for r, _ in pairs) / 1e9, "predicted_gb": max(p["memory"] for _, p in pairs) / 1e9}
    return Ratio(tuple(r.peak / p["memory"] for r, p in pairs), notes=notes)


def _orchestration(rounds: int) -> Ratio:
    """The full quickstart in a home that MLflow and Prefect have filled before, but with no step done."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        # a second of work, for the tables that are made once in a home
        run(home, [*SMALLER, "corpus.wrapped=20", "corpus.truncated=20", "validate.test_per_label=1"])
        found = []
        for number in range(rounds):
            (home / "steps").rename(home / f"steps-{number}")
            found.append(run(home, [f"seed={number}"]))
    walls, own = tuple(r.wall for r in found), tuple(r.own for r in found)
    notes = {"outside_seconds": sorted(w - o for w, o in zip(walls, own, strict=True))[rounds // 2]}
    return Ratio(tuple(o / w for o, w in zip(own, walls, strict=True)), walls, own, notes)


BENCHMARKS = [
    Benchmark(
        "orchestration",
        "the steps' own times in the wall time of the whole `contrans run quickstart`",
        0.95,
        _orchestration,
    ),
    Benchmark("planner_time", "the time that `contrans plan` predicted; .77 to 1.3", 0.77, _planner_time),
    Benchmark("planner_memory", "the peak that `contrans plan` predicted; .83 to 1.25", 0.83, _planner_memory),
]
