"""Putting an export where it was asked for: whole or not at all, and never over what is there."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from contrans.errors import ArtifactError
from contrans.exchange.formats import Content


def write_content(path: str | Path, content: Content, *, force: bool = False) -> Path:
    """Writes a file, or the files of a folder.

    Args:
        path: where to; its parent folders are made.
        content: what.
        force: whether what is there gives way.

    Raises:
        ArtifactError: something is there and `force` is off, or it cannot be written.
    """

    def put(part: Path) -> None:
        if isinstance(content, bytes):
            part.write_bytes(content)
            return
        part.mkdir()
        for name, data in content.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(data)

    return write_by(path, put, force=force)


def write_by(path: str | Path, put: Callable[[Path], None], *, force: bool = False) -> Path:
    """Lets a function write a file or folder under another name, which takes its place once it is whole.

    Args:
        path: where it is to be.
        put: writes to the path that it is given, which does not exist yet.
        force: whether what is at `path` gives way.

    Raises:
        ArtifactError: something is there and `force` is off, or it cannot be written.
    """
    path = Path(path)
    check_free(path, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _aside(path) as part:
            put(part)
            _take_place(part, path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written ({error.strerror}); choose another path.") from error
    return path


def check_free(path: Path, *, force: bool = False) -> None:
    """Refuses a path where something is, unless it is to give way.

    Raises:
        ArtifactError: something is there.
    """
    if path.exists() and not force:
        raise ArtifactError(f"{path} is there already; choose another path, or add --force to write over it.")


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        yield part
    finally:
        _remove(part)


def _take_place(part: Path, path: Path) -> None:
    if not path.is_dir() and not part.is_dir():
        part.replace(path)
        return
    # A folder cannot replace a folder: the old one steps aside first, and comes back if the new one cannot come.
    old = path.with_name(f".{path.name}.{uuid4().hex[:8]}.old")
    had = path.exists()
    if had:
        path.rename(old)
    try:
        part.rename(path)
    except OSError:
        if had:
            old.rename(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
