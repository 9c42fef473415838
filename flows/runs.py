"""What surrounds a run: where things lie, which commit made them, and which runs died."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from registry import Registry, home

_LATEST = 100  # runs that are looked at for dead ones


def steps_folder() -> Path:
    """Where the outputs of steps lie."""
    return home() / "steps"


def runs_folder() -> Path:
    """Where each run has a folder, with its figure and its results."""
    return home() / "runs"


def open_registry(*, create: bool = True) -> Registry:
    """The registry: `$CONTRANS_REGISTRY` (a path or URL) or `registry.db` in `$CONTRANS_HOME`.

    Raises:
        RegistryError: It cannot be opened, or is missing and not to be created.
    """
    return Registry.open(os.environ.get("CONTRANS_REGISTRY") or None, create=create)


def commit() -> str | None:
    """Git commit of the code, with "-dirty" if files were changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()[:64] or None


@contextmanager
def alive(run_id: str, registry: Registry) -> Iterator[Path]:
    """Marks a run as alive for as long as the process is, and notes those that died without a word.

    Args:
        run_id: The run that begins.
        registry: Where the runs are noted.

    Yields:
        The run's folder.
    """
    for run in registry.runs(limit=_LATEST):
        if run.state == "running" and run.id != run_id and _is_dead(runs_folder() / run.id):
            registry.finish_run(run.id, "crashed")
            _unmark(runs_folder() / run.id)
    folder = runs_folder() / run_id
    folder.mkdir(parents=True, exist_ok=True)
    # The system gives up a process's locks when it is killed, so the lock tells who is alive.
    try:
        with FileLock(folder / ".alive"):
            yield folder
    finally:
        _unmark(folder)


def _unmark(folder: Path) -> None:
    """Takes the mark of a living run away, and its folder where nothing came of it."""
    (folder / ".alive").unlink(missing_ok=True)
    with suppress(OSError):  # there is something in it, or another run looked after it
        folder.rmdir()


def _is_dead(folder: Path) -> bool:
    if not (folder / ".alive").exists():
        return False  # of another machine
    try:
        with FileLock(folder / ".alive", timeout=0):
            return True
    except Timeout:
        return False
