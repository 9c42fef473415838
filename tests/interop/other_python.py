"""The Python in which repeng and steering-vectors live, which pin another NumPy and another transformers than ours."""

import json
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("in_other_python.py")


@cache
def other_python() -> Path:
    """`$CONTRANS_INTEROP_PYTHON`, else `.venv-interop` in the checkout; skips the test where there is none."""
    named = os.environ.get("CONTRANS_INTEROP_PYTHON")
    path = Path(named) if named else ROOT / ".venv-interop" / "bin" / "python"
    if not path.exists():
        pytest.skip(f"no {path}: `make interop` makes it, with repeng and steering-vectors in it")
    command = [str(path), "-c", "import repeng, steering_vectors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        pytest.skip(f"{path} cannot import repeng and steering-vectors: {done.stderr.strip().splitlines()[-1]}")
    return path


Job = tuple[str, Path, dict[str, Any]]


def run_there(jobs: Sequence[Job], folder: Path) -> None:
    """Runs tasks of `in_other_python.py` in one process, for starting it takes longer than all of them.

    Args:
        jobs: the task's name, the folder that it reads and writes in, and its settings.
        folder: where the list of jobs is written.
    """
    listed = folder / "jobs.json"
    listed.write_text(json.dumps([(task, str(where), settings) for task, where, settings in jobs]))
    command = [str(other_python()), str(SCRIPT), str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(), timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return kept | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
