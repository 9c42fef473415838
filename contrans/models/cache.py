"""The folder for what is converted or computed once: built under a lock, never half there."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import FileLock

from contrans.errors import ModelError
from contrans.hashing import digest

MANIFEST = "manifest.json"


def cache_home() -> Path:
    """Returns the cache folder: `CONTRANS_CACHE`, by default `~/.cache/contrans`."""
    return Path(os.environ.get("CONTRANS_CACHE") or "~/.cache/contrans").expanduser()


def model_folder(key: str) -> Path:
    """Returns where the converted model of this key lies, or will lie."""
    return cache_home() / "models" / key


def build_once(folder: Path, build: Callable[[Path], None], *, needed: int) -> None:
    """Fills a folder by `build`, exactly once, whatever else runs or crashes.

    One process builds under a file lock while others wait. The work happens in a temporary folder beside
    the final one, which takes its name only when all files are on disk; what a crash leaves is removed
    by the next call.

    Args:
        folder: The folder to fill.
        build: Writes the files, `manifest.json` among them, into the folder it is given.
        needed: Bytes that the work takes on disk at its peak.

    Raises:
        ModelError: The disk is full or the cache cannot be written.
    """
    if (folder / MANIFEST).is_file():
        return
    prefix = f".{folder.name}.tmp-"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if (folder / MANIFEST).is_file():
                return
            for leftover in folder.parent.glob(f"{prefix}*"):
                shutil.rmtree(leftover, ignore_errors=True)
            if shutil.disk_usage(folder.parent).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            work = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
            try:
                build(work)
                _sync(work)
                if folder.exists():  # a folder without manifest is none of ours to trust
                    shutil.rmtree(folder)
                work.rename(folder)
                _sync_folder(folder.parent)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise _explained(error, folder, needed) from error


def remembered(key: object) -> str | None:
    """Returns what was remembered under a JSON key, if anything."""
    try:
        return json.loads(_note(key).read_text(encoding="utf-8"))["value"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # forgotten or damaged: it is computed again


def remember(key: object, value: str) -> None:
    """Keeps a short text under a JSON key; without a word if the cache cannot be written."""
    path = _note(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"key": key, "value": value}, file)
        Path(name).replace(path)
    except OSError:
        return


def stamp(paths: Iterable[Path]) -> list[list[object]]:
    """Returns what tells whether files changed without reading them: real path, size and time of change."""
    stamps: list[list[object]] = []
    for path in sorted(paths):
        status = path.stat()
        stamps.append([str(path.resolve()), status.st_size, status.st_mtime_ns])
    return stamps


def _note(key: object) -> Path:
    return cache_home() / "known" / f"{digest(key)}.json"


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explained(error: OSError, folder: Path, needed: int) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            f"The disk of {folder.parent} is full: preparing {folder.name} takes {needed / 1e9:.1f} GB. "
            "Free that much or set CONTRANS_CACHE to a folder on a larger disk."
        )
    return ModelError(
        f"The model cache {folder.parent} cannot be written ({error.strerror or error}). "
        "Set CONTRANS_CACHE to a folder that you may write to."
    )
