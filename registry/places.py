"""Where bytes can be kept: a folder of this machine, or anything else that fsspec can write to."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from contrans.errors import RegistryError
from registry.masking import masked

_ATTEMPTS = 3


class Backend(Protocol):
    """What a place must offer; keys look like "ab/abcd…". Failures are `OSError`."""

    def write(self, key: str, data: bytes) -> None:
        """Stores the bytes, all of them or none, and returns once they are safe."""
        ...

    def read(self, key: str) -> bytes:
        """Reads the bytes; raises `FileNotFoundError` if there are none."""
        ...

    def size(self, key: str) -> int:
        """Size in bytes; raises `FileNotFoundError` if there are none."""
        ...

    def renew(self, key: str) -> None:
        """Marks the bytes as needed now, as if they had just been written."""
        ...

    def written(self, key: str) -> datetime:
        """When the bytes were last written; raises `FileNotFoundError` if there are none."""
        ...

    def remove(self, key: str) -> None:
        """Removes the bytes; raises `FileNotFoundError` if there are none."""
        ...

    def entries(self) -> Iterator[tuple[str, datetime]]:
        """Everything in the place, unfinished writes included, and when it was last written."""
        ...


class Folder:
    """A folder on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, key: str, data: bytes) -> None:
        """Writes to a temporary name, syncs, renames; a failure removes the temporary file."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.parent / f".{uuid.uuid4().hex}.part"
        for attempt in range(_ATTEMPTS):
            try:
                _write_synced(draft, data)
                draft.replace(path)
                break
            except FileNotFoundError:  # what is unfinished was cleared away meanwhile
                if attempt == _ATTEMPTS - 1:
                    raise
            except BaseException:  # also an interrupt must not leave half a file behind
                draft.unlink(missing_ok=True)
                raise
        self._sync_folders(path.parent)

    def read(self, key: str) -> bytes:
        """Reads the file."""
        return (self.root / key).read_bytes()

    def size(self, key: str) -> int:
        """Size of the file."""
        return (self.root / key).stat().st_size

    def renew(self, key: str) -> None:
        """Sets the file's time to now and makes sure that its name is on the disk."""
        os.utime(self.root / key)
        self._sync_folders((self.root / key).parent)

    def written(self, key: str) -> datetime:
        """The file's time."""
        return datetime.fromtimestamp((self.root / key).stat().st_mtime, UTC)

    def remove(self, key: str) -> None:
        """Removes the file."""
        (self.root / key).unlink()

    def entries(self) -> Iterator[tuple[str, datetime]]:
        """Walks the folder; files that vanish meanwhile are left out."""
        for path in sorted(self.root.rglob("*")):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.is_file():
                yield path.relative_to(self.root).as_posix(), datetime.fromtimestamp(status.st_mtime, UTC)

    def _sync_folders(self, leaf: Path) -> None:
        # A renamed file survives a power cut only once the folders that name it are synced too.
        for folder in (leaf, self.root):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


class ObjectStore:
    """Any other place fsspec can write to, where putting one object is atomic (S3, GCS, memory)."""

    def __init__(self, filesystem: Any, root: str) -> None:
        self.filesystem = filesystem  # Any: fsspec has no types
        self.root = root.rstrip("/")

    def write(self, key: str, data: bytes) -> None:
        """Puts the object and compares the size that the store reports."""
        with _as_oserror():
            self.filesystem.pipe_file(self._path(key), data)
        if self.size(key) != len(data):
            raise OSError(f"only {self.size(key)} of {len(data)} bytes arrived")

    def read(self, key: str) -> bytes:
        """Gets the object."""
        with _as_oserror():
            return self.filesystem.cat_file(self._path(key))

    def size(self, key: str) -> int:
        """Size of the object, past fsspec's listing cache, which other writers do not refresh."""
        with _as_oserror():
            self.filesystem.invalidate_cache()
            return int(self.filesystem.size(self._path(key)))

    def renew(self, key: str) -> None:
        """Puts the object again, since object stores cannot change a time alone."""
        self.write(key, self.read(key))

    def written(self, key: str) -> datetime:
        """The object's time."""
        with _as_oserror():
            self.filesystem.invalidate_cache()
            return self.filesystem.modified(self._path(key)).astimezone(UTC)

    def remove(self, key: str) -> None:
        """Removes the object."""
        with _as_oserror():
            self.filesystem.rm_file(self._path(key))

    def entries(self) -> Iterator[tuple[str, datetime]]:
        """Lists the objects; those that vanish meanwhile are left out."""
        with _as_oserror():
            self.filesystem.invalidate_cache()
            paths = self.filesystem.find(self.root) if self.filesystem.exists(self.root) else []
        for path in paths:
            try:
                with _as_oserror():
                    written = self.filesystem.modified(path)
            except FileNotFoundError:
                continue
            # Some filesystems list what they were asked for with a slash before it, or without.
            yield path.lstrip("/").removeprefix(self.root.lstrip("/")).lstrip("/"), written.astimezone(UTC)

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"


@contextmanager
def _as_oserror() -> Iterator[None]:
    """Turns the errors of a filesystem's package, each of which has its own, into `OSError`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _write_synced(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less the user's umask
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def place_of(url: str) -> Backend:
    """The place that a folder's name or an fsspec URL means.

    Raises:
        RegistryError: If no installed package can write there.
    """
    try:
        filesystem, root = url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise RegistryError(
            f"The blob store {masked(url)} cannot be used: {masked(str(error))} "
            "Name a folder, or install the package for that kind of URL."
        ) from error
    if isinstance(filesystem, LocalFileSystem):
        return Folder(Path(root).absolute())
    return ObjectStore(filesystem, root)
