"""The bytes of versions, each content once, under its SHA-256."""

import hashlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from contrans.errors import RegistryError
from registry.masking import masked
from registry.places import place_of

MAX_BLOB = 8 * 2**30  # bytes


class BlobStore:
    """Bytes by their SHA-256.

    Args:
        url: A folder, or a URL that fsspec can write to (`file://`, `memory://`, `s3://`, …).
        max_size: Largest content in bytes; larger ones are neither stored nor read.
    """

    def __init__(self, url: str | Path, *, max_size: int = MAX_BLOB) -> None:
        self.url = masked(str(url))
        self.max_size = max_size
        self._backend = place_of(str(url))

    def put(self, data: bytes) -> str:
        """Stores bytes and returns their SHA-256 once they are safe; bytes already there stay as they are.

        Raises:
            RegistryError: If they are too many, or the place is full or cannot be written; nothing
                half-written stays.
        """
        self._check_size(len(data))
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            if self.fault(sha256, len(data)) is not None or not self._renewed(sha256):
                self._backend.write(_key(sha256), data)
        except OSError as error:
            raise RegistryError(self._refusal("written", error) + " Nothing was registered.") from error
        return sha256

    def ensure(self, data: bytes) -> None:
        """Stores bytes again if they were collected since `put` returned; to be called where `collect` cannot run.

        Raises:
            RegistryError: As `put`.
        """
        try:
            there = self._backend.size(_key(hashlib.sha256(data).hexdigest())) == len(data)
        except FileNotFoundError:
            there = False
        except OSError as error:
            raise RegistryError(self._refusal("read", error) + " Nothing was registered.") from error
        if not there:
            self.put(data)

    def get(self, sha256: str, size: int) -> bytes:
        """Reads bytes and checks them.

        Raises:
            RegistryError: If they are missing, unreadable, too many or not the ones that were stored.
        """
        self._check_size(size)
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

    def take_back(self, key: str, before: datetime) -> int | None:
        """Removes what `strays` named, unless it was written or renewed since.

        Args:
            key: Its name in the store.
            before: What was last written at this time or later stays.

        Returns:
            The bytes that were freed; None if it is gone already, or needed again.
        """
        try:
            size = self._backend.size(key)
            if self._backend.written(key) >= before:
                return None
            self._backend.remove(key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RegistryError(self._refusal("cleared", error)) from error
        return size

    def size_of(self, key: str) -> int:
        """Size of what `strays` named, in bytes; 0 if it is gone."""
        try:
            return self._backend.size(key)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise RegistryError(self._refusal("read", error)) from error

    def peek(self, key: str) -> bytes:
        """Reads what `strays` named, whatever it is; nothing if it is gone or cannot be read."""
        try:
            return self._backend.read(key)
        except OSError:
            return b""

    def _renewed(self, sha256: str) -> bool:
        try:
            self._backend.renew(_key(sha256))
        except FileNotFoundError:
            return False
        return True

    def _check_size(self, size: int) -> None:
        if size > self.max_size:
            raise RegistryError(
                f"A file of {size:,} bytes is more than a registry takes ({self.max_size:,} bytes); "
                "split it into several."
            )

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


def sha256_of(key: str) -> str:
    """The SHA-256 that a key of the store stands for; for what is no blob, such as an unfinished write, ""."""
    head, _, name = key.rpartition("/")
    return name if len(name) == 64 and head == name[:2] else ""
