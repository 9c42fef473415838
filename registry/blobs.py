"""Where the bytes are: a content-addressed store on a folder or on anything fsspec can write to."""

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from contrans.errors import RegistryError
from registry.masking import masked

_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")


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
        try:
            _write_synced(draft, data)
            draft.replace(path)
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
        self.filesystem.pipe_file(self._path(key), data)
        if self.size(key) != len(data):
            raise OSError(f"only {self.size(key)} of {len(data)} bytes arrived")

    def read(self, key: str) -> bytes:
        """Gets the object."""
        return self.filesystem.cat_file(self._path(key))

    def size(self, key: str) -> int:
        """Size of the object, past fsspec's listing cache, which other writers do not refresh."""
        self.filesystem.invalidate_cache()
        return int(self.filesystem.size(self._path(key)))

    def renew(self, key: str) -> None:
        """Puts the object again, since object stores cannot change a time alone."""
        self.write(key, self.read(key))

    def entries(self) -> Iterator[tuple[str, datetime]]:
        """Lists the objects."""
        self.filesystem.invalidate_cache()
        for path in self.filesystem.find(self.root):
            key = path[len(path) - 67 :] if _KEY.fullmatch(path[-67:]) else path
            yield key, self.filesystem.modified(path).astimezone(UTC)

    def _path(self, key: str) -> str:
        return f"{self.root}/{key}"


class BlobStore:
    """Bytes by their SHA-256.

    Args:
        url: A folder, or a URL that fsspec can write to (`file://`, `memory://`, `s3://`, …).
    """

    def __init__(self, url: str | Path) -> None:
        self.url = masked(str(url))
        self._backend = _backend(str(url))

    def put(self, data: bytes) -> str:
        """Stores bytes and returns their SHA-256 once they are safe; bytes already there stay as they are.

        Raises:
            RegistryError: If the place is full or cannot be written; nothing half-written stays.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            if self.fault(sha256, len(data)) is None:
                self._backend.renew(_key(sha256))
            else:
                self._backend.write(_key(sha256), data)
        except OSError as error:
            raise RegistryError(self._refusal("written", error) + " Nothing was registered.") from error
        return sha256

    def get(self, sha256: str, size: int) -> bytes:
        """Reads bytes and checks them.

        Raises:
            RegistryError: If they are missing, unreadable or not the ones that were stored.
        """
        try:
            # The size goes first, so that a damaged store cannot make us read without bound.
            data = self._backend.read(_key(sha256)) if self._backend.size(_key(sha256)) == size else b""
        except FileNotFoundError as error:
            raise RegistryError(self._sentence(sha256, "missing")) from error
        except OSError as error:
            raise RegistryError(self._refusal("read", error)) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise RegistryError(self._sentence(sha256, "corrupt"))
        return data

    def fault(self, sha256: str, size: int) -> tuple[str, str] | None:
        """Tells what is wrong with a blob: ("missing" or "corrupt", a sentence), or None."""
        try:
            intact = self._backend.size(_key(sha256)) == size
            intact = intact and hashlib.sha256(self._backend.read(_key(sha256))).hexdigest() == sha256
        except FileNotFoundError:
            return "missing", self._sentence(sha256, "missing")
        except OSError as error:
            return "corrupt", self._refusal("read", error)
        return None if intact else ("corrupt", self._sentence(sha256, "corrupt"))

    def strays(self, needed: set[str], before: datetime) -> Iterator[str]:
        """Names everything last written before a point in time that is not among the needed blobs."""
        keys = {_key(sha256) for sha256 in needed}
        try:
            for key, written in self._backend.entries():
                if key not in keys and written < before:
                    yield key
        except OSError as error:
            raise RegistryError(self._refusal("listed", error)) from error

    def _refusal(self, what: str, error: OSError) -> str:
        return (
            f"The blob store {self.url} cannot be {what} ({masked(str(error))}); "
            "check that it has space left and your rights there."
        )

    def _sentence(self, sha256: str, fault: str) -> str:
        state = "is missing from" if fault == "missing" else "is damaged in"
        return (
            f"Blob {sha256[:12]} {state} the store {self.url}; restore it from a copy, "
            "or run the pipeline that made it again."
        )


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def _write_synced(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less the user's umask
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _backend(url: str) -> Backend:
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
