"""What the tests of locks run in other processes: the steps of a pipeline, as the flow runs them."""

import os
import signal
import sys
import time
from pathlib import Path

from flows.locks import to_compute
from flows.pool import Pool
from flows.spec import load_spec
from flows.steps import StepContext, build_steps
from flows.store import Store


def run(spec_path: Path, home: Path, log: Path, *, die_in: str = "") -> None:
    """Runs every step of a spec and notes in a file which it computed; is killed in the middle of one if wanted."""
    spec = load_spec(spec_path)
    pool, store = Pool(spec), Store(home / "steps")
    steps = {step.name: step for step in build_steps(spec, pool.record("source"), pool.record("target"))}
    context = StepContext(spec, store, steps, pool)
    for step in steps.values():

        def waits(name: str = step.name) -> None:
            _note(log, f"waits {name}")

        with to_compute(store, step.key, waits=waits) as wanted:
            if not wanted:
                continue
            _note(log, f"computes {step.name}")
            if step.name == die_in:
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGKILL)
            store.write(step.key, step.run(context))
            _note(log, f"done {step.name}")


def _note(log: Path, line: str) -> None:
    with log.open("a", encoding="utf-8") as out:
        out.write(f"{line}\n")


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:4]), die_in=sys.argv[4] if len(sys.argv) > 4 else "")
