"""A matrix of tiny models that is killed at random points and resumed: `python -m tests.crash.matrix --pairs 200`.

Prints, as JSON, how long planning took, what share of the time went into steps, and whether the registry of the run
that was killed again and again is that of a run that nobody disturbed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry import Registry
from tests.crash.material import write_matrix

# a shell that puts us into the background has its children ignore Ctrl-C
_PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from flows.cli import main
main()
"""
_ROOT = Path(__file__).parents[2]
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Report:
    """What came of it.

    Attributes:
        pairs: cells of the matrix.
        concepts: of each.
        plan_seconds: planning all cells of it, imports and the measurement of the machine left out.
        wall_seconds: of the run that nobody disturbed, from the start of its process to its end.
        step_seconds: what its steps took, models and registry included.
        overhead: share of the wall time that is neither.
        kills: how often the other run was killed before its end.
        runs: how many runs of cells those attempts began.
        equal: whether both registries hold the same.
        digest: of the first one.
        left_over: files of the home that a run should have taken away.
    """

    pairs: int
    concepts: int
    plan_seconds: float
    wall_seconds: float
    step_seconds: float
    overhead: float
    kills: int
    runs: int
    equal: bool
    digest: str
    left_over: list[str]


def crash(
    folder: Path,
    *,
    pairs: int,
    concepts: int,
    kills: int,
    draws: int = 1,
    items: int = 1,
    seed: int = 0,
    prefect_url: str = "",
) -> Report:
    """Runs a matrix in peace, and once more under fire.

    Args:
        folder: an empty folder for models and homes.
        pairs: cells.
        concepts: of each.
        kills: how often a run is killed.
        draws: random vectors that a transplant is compared with.
        items: of each concept on which both are tested.
        seed: of the moments.
        prefect_url: a server that runs; each attempt starts its own if empty.

    Raises:
        RuntimeError: a run failed by itself.
    """
    sources = max(n for n in range(1, int(pairs**0.5) + 1) if pairs % n == 0)
    spec = write_matrix(
        folder / "tiny", sources=sources, targets=pairs // sources, concepts=concepts, draws=draws, items=items
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "CONTRANS_"))}
    environment |= {"CONTRANS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment |= {"PREFECT_API_URL": prefect_url} if prefect_url else {}
    peace, war = folder / "peace", folder / "war"
    plan_seconds = _plan(spec, environment | {"CONTRANS_HOME": str(peace)})
    wall = _in_peace(spec, environment | {"CONTRANS_HOME": str(peace)}, folder / "peace.log", folder / "wall")
    steps = sum(_own_seconds(json.loads(path.read_text(encoding="utf-8"))) for path in _documents(peace))

    moments, killed = random.Random(seed), 0
    while killed < kills:
        process = _start(spec, environment | {"CONTRANS_HOME": str(war)}, folder / "war.log")
        try:
            # a part of the matrix at most, so that there is something left to kill
            process.wait(moments.uniform(0.1, 1.0) * (10 + 1.5 * wall / kills))
            break  # there is nothing left to do
        except subprocess.TimeoutExpired:
            process.send_signal(moments.choice(_SIGNALS))
            process.wait()
            killed += 1
    process = _start(spec, environment | {"CONTRANS_HOME": str(war)}, folder / "war.log")
    if process.wait():
        raise RuntimeError(f"The run failed: {(folder / 'war.log').read_text(encoding='utf-8')[-2000:]}")
    digests = [_digest(home) for home in (peace, war)]
    with Registry.open(war / "registry.db") as registry:
        runs = len(registry.runs())
    return Report(
        pairs=pairs,
        concepts=concepts,
        plan_seconds=round(plan_seconds, 3),
        wall_seconds=round(wall, 1),
        step_seconds=round(steps, 1),
        overhead=round(1 - steps / wall, 3),
        kills=killed,
        runs=runs,
        equal=digests[0] == digests[1],
        digest=digests[0],
        left_over=_left_over(war),
    )


def _in_peace(spec: Path, environment: dict[str, str], log: Path, known: Path) -> float:
    """Seconds of a run that nobody disturbs; a run that ended in the same folder before is not done again."""
    if not known.exists():
        start = time.monotonic()
        if _start(spec, environment, log).wait():
            raise RuntimeError(f"The run failed: {log.read_text(encoding='utf-8')[-2000:]}")
        known.write_text(str(time.monotonic() - start), encoding="utf-8")
    return float(known.read_text(encoding="utf-8"))


def _start(spec: Path, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _PROGRAM, "run", str(spec), "--quiet"]
    with log.open("wb") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=_ROOT)


def _plan(spec: Path, environment: dict[str, str]) -> float:
    program = (
        "import sys, time\n"
        "from flows.hardware import gpu\n"
        "from flows.planning import plan_all\n"
        "from flows.spec import load_sweep\n"
        "import flows.extras, flows.work\n"
        "start = time.monotonic()\n"
        "plan_all([cell.spec for cell in load_sweep(sys.argv[1]).points], on=gpu('h100'))\n"
        "print(time.monotonic() - start)"
    )
    command = [sys.executable, "-c", program, str(spec)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=_ROOT)
    return float(done.stdout.splitlines()[-1])


def _documents(home: Path) -> list[Path]:
    return [path for path in (home / "runs").glob("*/results.json") if "-matrix-" not in path.parent.name[-20:]]


def _own_seconds(document: dict[str, Any]) -> float:
    return sum(seconds for name, seconds in document.get("timings", {}).items() if name != "track")


def _digest(home: Path) -> str:
    with Registry.open(home / "registry.db") as registry:
        problems = registry.check()
        return registry.content_digest() if not problems else f"damaged: {problems[0]}"


def _left_over(home: Path) -> list[str]:
    """What nobody needs: parts of outputs, locks, marks of runs that are alive."""
    found = [*(home / "steps").glob("*/.*"), *(home / "steps-in-use").glob("*"), *(home / "runs").glob("*/.alive")]
    return sorted(str(path.relative_to(home)) for path in found if path.name != "evicting")


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and prints a report."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.matrix", description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--concepts", type=int, default=12)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--draws", type=int, default=99, help="random vectors to compare with: 99, or p is never .01")
    parser.add_argument("--items", type=int, default=6, help="of each concept to test with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keeps models and homes there, for the next call too")
    given = parser.parse_args(arguments)
    settings = {key: getattr(given, key) for key in ("pairs", "concepts", "kills", "draws", "items", "seed")}
    with tempfile.TemporaryDirectory() as temporary:
        report = crash(given.folder or Path(temporary), **settings)
    sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")


if __name__ == "__main__":
    main()
