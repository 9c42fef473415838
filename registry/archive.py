"""One file that holds rows and blobs: a tar with a header, every member's SHA-256, and nothing to unpack on disk.

Members, in this order: `contrans.json` (the header), `rows/NAME.jsonl` (a JSON object a line), `blobs/ab/abcd…` (each
named by its SHA-256), `SHA256SUMS` (of all members before it, as `sha256sum` writes it).
"""

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from contrans.errors import RegistryError
from registry.masking import masked

FORMAT_VERSION = 1
MAX_LINE = 16 * 2**20  # bytes of a row: a manifest takes 1 MiB, and up to six times that when its signs are escaped
MAX_HEADER = 2**20  # bytes

Content = Literal["backup", "export"]
_HEADER, _SUMS = "contrans.json", "SHA256SUMS"
_MEMBER = re.compile(r"rows/[a-z_]{1,64}\.jsonl|blobs/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_CHUNK = 2**20


class ArchiveWriter:
    """Writes an archive; made by `writing`."""

    def __init__(self, tar: tarfile.TarFile, folder: Path) -> None:
        self._tar = tar
        self._folder = folder
        self._sums: dict[str, str] = {}

    def add(self, name: str, data: bytes) -> None:
        """Adds a member."""
        self._sums[name] = hashlib.sha256(data).hexdigest()
        self._tar.addfile(_info(name, len(data)), io.BytesIO(data))

    def add_blob(self, sha256: str, data: bytes) -> None:
        """Adds a blob, once."""
        name = _blob(sha256)
        if name not in self._sums:
            self.add(name, data)

    def add_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """Adds rows, a line each, however many they are; gives their count."""
        sum_, size, count = hashlib.sha256(), 0, 0
        with tempfile.TemporaryFile(dir=self._folder) as file:  # a tar wants to know the size first
            for row in rows:
                line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
                file.write(line)
                sum_.update(line)
                size, count = size + len(line), count + 1
            file.seek(0)
            member = f"rows/{name}.jsonl"
            self._tar.addfile(_info(member, size), file)
        self._sums[member] = sum_.hexdigest()
        return count

    def finish(self) -> None:
        """Adds the sums."""
        data = "".join(f"{sum_}  {name}\n" for name, sum_ in self._sums.items()).encode()
        self._tar.addfile(_info(_SUMS, len(data)), io.BytesIO(data))


@contextmanager
def writing(path: Path, content: Content, header: Mapping[str, Any]) -> Iterator[ArchiveWriter]:
    """Writes an archive to a temporary name beside, syncs it and renames it; a failure leaves nothing.

    Args:
        path: Where it goes; a file that is there is replaced.
        content: What it is.
        header: What else the header says.

    Raises:
        RegistryError: If the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        try:
            handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)  # less the user's umask
            with os.fdopen(handle, "wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    writer = ArchiveWriter(tar, path.parent)
                    first = {"format": f"contrans-registry-{content}", "format_version": FORMAT_VERSION, **header}
                    writer.add(_HEADER, json.dumps(first, indent=1, ensure_ascii=False).encode())
                    yield writer
                    writer.finish()
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise RegistryError(
            f"The archive {path} cannot be written ({masked(error.strerror or str(error))}); check its folder, your "
            "rights there and the space left."
        ) from error


class Archive:
    """An archive that was read through and whose every hash is right; made by `reading`.

    Attributes:
        header: What it says of itself.
        blobs: Size of each blob, by SHA-256.
    """

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self.path = path
        self._tar = tar
        self._members = self._verified()
        self.header = self._header()
        matches = [(_MEMBER.fullmatch(name), member) for name, member in self._members.items()]
        self.blobs = {match[2]: member.size for match, member in matches if match is not None and match[2]}

    def get(self, sha256: str, size: int) -> bytes:
        """Reads a blob and checks it.

        Raises:
            RegistryError: If the archive does not hold it.
        """
        if self.blobs.get(sha256) != size:
            raise RegistryError(f"The archive {self.path} does not hold the blob {sha256[:12]}; use another copy.")
        with _sentences(self.path):
            data = self._open(_blob(sha256)).read()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._damaged(f"the blob {sha256[:12]} changed while it was read")
        return data

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """Reads rows one by one; none if the archive has no such table."""
        if f"rows/{name}.jsonl" not in self._members:
            return
        with _sentences(self.path):
            file = self._open(f"rows/{name}.jsonl")
            while line := file.readline(MAX_LINE + 1):
                yield self._object(line, f"a row of {name}")

    def wanted(self, content: Content) -> "Archive":
        """Gives itself back if it is a backup, or an export, of a format that this version reads."""
        found = self.header.get("format")
        if found != f"contrans-registry-{content}":
            other = "export" if content == "backup" else "backup"
            hint = f"; it is {'an' if other == 'export' else 'a'} {other}" if str(found).endswith(other) else ""
            raise RegistryError(f"{self.path} is no {content} of a registry{hint}; name another file.")
        return self

    def damaged(self, what: str) -> RegistryError:
        """The error that something in the archive is not as it should be."""
        return self._damaged(what)

    def _verified(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        sums: dict[str, str] = {}
        for member in self._tar:
            name = member.name
            if name in members or _SUMS in members or not member.isreg() or member.issparse():
                raise self._damaged(f"the member {name[:100]!r} does not belong there")
            if name not in (_HEADER, _SUMS) and _MEMBER.fullmatch(name) is None:
                raise self._damaged(f"the member {name[:100]!r} does not belong there")
            members[name] = member
            if name != _SUMS:
                sums[name] = self._sum(name, member)
        if _SUMS not in members or _HEADER not in members:
            raise self._damaged("it ends too early")
        written = "".join(f"{sum_}  {name}\n" for name, sum_ in sums.items()).encode()
        if members[_SUMS].size != len(written) or self._read(members[_SUMS]) != written:
            raise self._damaged("a hash is wrong")
        return members

    def _sum(self, name: str, member: tarfile.TarInfo) -> str:
        sum_, file = hashlib.sha256(), self._tar.extractfile(member)
        assert file is not None
        while chunk := file.read(_CHUNK):
            sum_.update(chunk)
        match = _MEMBER.fullmatch(name)
        if match is not None and match[2] and match[2] != sum_.hexdigest():
            raise self._damaged(f"the hash of the blob {match[2][:12]} is wrong")
        return sum_.hexdigest()

    def _header(self) -> dict[str, Any]:
        member = self._members[_HEADER]
        if member.size > MAX_HEADER:
            raise self._damaged("its header is too long")
        header = self._object(self._read(member), "the header")
        version = header.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise RegistryError(
                f"The archive {self.path} has the format {version}, and this version of contrans reads up to "
                f"{FORMAT_VERSION}; upgrade contrans."
            )
        if version != FORMAT_VERSION or isinstance(version, bool):
            raise self._damaged("its header names no format")
        return header

    def _object(self, line: bytes, what: str) -> dict[str, Any]:
        if len(line) > MAX_LINE:
            raise self._damaged(f"{what} is longer than {MAX_LINE:,} bytes")
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"{what} is not JSON") from error
        if not isinstance(found, dict):
            raise self._damaged(f"{what} is not a JSON object")
        return found

    def _read(self, member: tarfile.TarInfo) -> bytes:
        file = self._tar.extractfile(member)
        assert file is not None
        return file.read()

    def _open(self, name: str) -> BinaryIO:
        file = self._tar.extractfile(self._members[name])
        assert file is not None
        return io.BufferedReader(file)  # type: ignore[arg-type]  tarfile's reader is one that can be buffered

    def _damaged(self, what: str) -> RegistryError:
        return RegistryError(f"The archive {self.path} is damaged or was made by something else: {what}.")


@contextmanager
def reading(path: Path) -> Iterator[Archive]:
    """Opens an archive and checks every hash before anything of it is used.

    Raises:
        RegistryError: If it cannot be read, is damaged, or is newer than this version.
    """
    with _sentences(path):
        tar = tarfile.open(path, mode="r:")  # noqa: SIM115  closed below
    try:
        with _sentences(path):
            archive = Archive(path, tar)
        yield archive
    finally:
        tar.close()


@contextmanager
def _sentences(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OverflowError, UnicodeError) as error:
        raise RegistryError(
            f"The archive {path} is damaged or was made by something else: {str(error)[:200] or 'it ends too early'}."
        ) from error
    except OSError as error:
        raise RegistryError(
            f"The archive {path} cannot be read ({error.strerror or error}); check its name and your rights on it."
        ) from error


def _blob(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info
