"""The Pythons of tools that pin other packages than ours: repeng and steering-vectors in one, vLLM in another."""

import json
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.interop.missing import missing

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("in_other_python.py")


@cache
def other_python() -> Path:
    """`$CONTRANS_INTEROP_PYTHON`, else `.venv-interop` in the checkout; skips the test where there is none."""
    named = os.environ.get("CONTRANS_INTEROP_PYTHON")
    path = Path(named) if named else ROOT / ".venv-interop" / "bin" / "python"
    if not path.exists():
        missing(f"no {path}: `make interop-tools` makes it, with repeng and steering-vectors in it")
    command = [str(path), "-c", "import repeng, steering_vectors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        missing(f"{path} cannot import repeng and steering-vectors: {done.stderr.strip().splitlines()[-1]}")
    return path


def vllm_python() -> Path:
    """`$CONTRANS_VLLM_PYTHON`, else `.venv-interop/vllm` in the checkout; else a skip: not every CPU has a build."""
    named = os.environ.get("CONTRANS_VLLM_PYTHON")
    path = Path(named) if named else ROOT / ".venv-interop" / "vllm" / "bin" / "python"
    if not path.exists():
        pytest.skip(f"no {path}: `make interop-tools` makes it, with vLLM for CPUs in it")
    return path


def sources(name: str) -> Path:
    """Sources of a tool that no registry has, in `$CONTRANS_INTEROP_SOURCES` or `.venv-interop/src`, else a skip.

    That GitHub cannot be reached is no fault of the checkout, so this is a skip even where all tools are due.
    """
    folder = Path(os.environ.get("CONTRANS_INTEROP_SOURCES") or ROOT / ".venv-interop" / "src") / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: `make interop-tools` fetches it where GitHub can be reached")
    return folder


Job = tuple[str, Path, dict[str, Any]]


def run_there(jobs: Sequence[Job], folder: Path, *, python: Path | None = None) -> None:
    """Runs tasks of `in_other_python.py` in one process, for starting it takes longer than all of them.

    Args:
        jobs: the task's name, the folder that it reads and writes in, and its settings.
        folder: where the list of jobs is written.
        python: by default `other_python`.
    """
    listed = folder / "jobs.json"
    listed.write_text(json.dumps([(task, str(where), settings) for task, where, settings in jobs]))
    command = [str(python or other_python()), str(SCRIPT), str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(), timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return {"OMP_NUM_THREADS": "1"} | kept | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
