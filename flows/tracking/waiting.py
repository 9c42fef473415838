"""Notes that MLflow could not be told: they wait in a folder, one file a run, and are told when it answers again."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from contrans.errors import ContransError
from flows.tracking.notes import Note
from registry import home

log = logging.getLogger(__name__)

MOST_AT_ONCE = 50


def waiting_folder() -> Path:
    """Where notes wait."""
    return home() / "mlflow-waiting"


def put_by(note: Note) -> Path | None:
    """Keeps a note, whole or not at all.

    Returns:
        Where it waits; None, with a warning, if it cannot be written.
    """
    path = waiting_folder() / f"{note.name}.json"
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(note.to_json()), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        log.warning("What MLflow should know cannot be kept in %s (%s).", path.parent, error.strerror)
        return None
    return path


def tell_waiting(tell: Callable[[Note], str]) -> dict[str, str]:
    """Tells the notes that wait, the oldest first, and forgets those that were told.

    Args:
        tell: tells one and gives MLflow's id; what it raises ends the telling.

    Returns:
        MLflow's id for the name of each note that was told.
    """
    folder, told = waiting_folder(), dict[str, str]()
    if not folder.is_dir():
        return told
    try:
        with FileLock(folder / ".lock", timeout=0):  # another run may be telling them
            for path in sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime_ns)[:MOST_AT_ONCE]:
                note = _read(path)
                if note is not None:
                    told[note.name] = tell(note)
                    path.unlink()
    except Timeout:
        pass
    return told


def _read(path: Path) -> Note | None:
    try:
        return Note.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, ContransError) as error:
        log.warning("%s is no note of a run (%s); delete it.", path, error)
        return None
