"""What steps leave behind: one folder of files per content key, there whole or not at all.

Nothing is ever changed, but outputs may be evicted to make room. Whoever needs some holds them, which keeps them from
being evicted by any process of this machine; a process that is killed holds nothing.
"""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from contrans.errors import ContransError

_GONE = ".gone-"


class Store:
    """Outputs of steps, by the key that names everything they were made from.

    Attributes:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        """The folder of a key, whether it is there or not."""
        return self.folder / key[:2] / key

    def has(self, key: str) -> bool:
        """Whether a step with this key has been done."""
        return self.path(key).is_dir()

    def files(self, name: str) -> list[Path]:
        """The files of this name in all outputs, that of the output used last first."""
        found = []
        for path in self.folder.glob(f"[!.]*/[!.]*/{name}"):
            with suppress(OSError):  # evicted in between
                found.append((path.parent.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found, reverse=True)]

    def read(self, key: str, *names: str) -> dict[str, bytes]:
        """The files of a key, or only those named.

        Raises:
            ContransError: the step has not been done, or a file was taken away.
        """
        folder = self.path(key)
        try:
            wanted = names or sorted(p.name for p in folder.iterdir())
            return {name: (folder / name).read_bytes() for name in wanted}
        except OSError as error:
            raise self.unreadable(key, f"{error.filename}: {error.strerror}") from error

    def unreadable(self, key: str, why: str) -> ContransError:
        """The error of an output that cannot be read."""
        return ContransError(
            f"The output of a finished step cannot be read ({why}); delete {self.path(key)} and run again."
        )

    def write(self, key: str, files: Mapping[str, bytes]) -> None:
        """Keeps the files of a key. Whoever comes second finds the first one's and leaves them.

        Raises:
            ContransError: they cannot be written; then nothing of them is left.
        """
        final = self.path(key)
        part = None
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=final.parent))
            for name, data in files.items():
                with (part / name).open("wb") as out:
                    out.write(data)
                    out.flush()
                    os.fsync(out.fileno())
            part.chmod(0o755)
            try:
                part.rename(final)
            except OSError:
                # a folder with content is never replaced by rename: equal work was done beside this one
                if not final.is_dir():
                    raise
        except OSError as error:
            raise self._unwritable(final.parent, error) from error
        finally:
            if part is not None and part.exists():
                shutil.rmtree(part, ignore_errors=True)

    def tidy(self, key: str) -> None:
        """Takes away what was left half-written of a key; for whoever alone may write it, see `flows.locks`."""
        final = self.path(key)
        for part in final.parent.glob(f".{key}-*"):
            shutil.rmtree(part, ignore_errors=True)

    def used(self, key: str) -> None:
        """Notes that an output is used, so that others are evicted before it."""
        with suppress(OSError):  # it may lie where nothing can be written
            os.utime(self.path(key))

    @contextmanager
    def holding(self, keys: Iterable[str]) -> Iterator[None]:
        """Keeps outputs from being evicted, those that are written later included, until the context or process ends.

        Raises:
            ContransError: the folder of the locks cannot be written.
        """
        name = uuid4().hex
        lock, note = (self.locks / f"{name}.{suffix}" for suffix in ("lock", "keys"))
        try:
            self.locks.mkdir(parents=True, exist_ok=True)
            # the system gives up a process's locks when it is killed; held before the note is there to be judged by it
            alive = FileLock(lock)
            alive.acquire()
            with self._evicting():
                self._held()  # takes away what killed processes have left
                note.write_text("\n".join(keys), encoding="utf-8")
        except OSError as error:
            raise self._unwritable(self.locks, error) from error
        try:
            yield
        finally:
            note.unlink(missing_ok=True)
            alive.release()
            lock.unlink(missing_ok=True)

    def make_room(self, name: str, most: int, *, coming: int = 0, keep: Collection[str] = ()) -> list[str]:
        """Evicts outputs that have a file of this name until all such files together are small enough.

        Those that were not used for longest go first; those that anybody holds stay.

        Args:
            name: of the file.
            most: bytes that all files of this name may have.
            coming: bytes of one that is about to be written.
            keep: keys that stay too.

        Returns:
            The keys of what was evicted.
        """
        sizes: dict[Path, int] = {}
        for path in reversed(self.files(name)):
            with suppress(OSError):
                sizes[path.parent] = path.stat().st_size
        total = coming + sum(sizes.values())
        if total <= most:
            return []
        gone: list[tuple[str, Path]] = []
        with self._evicting():
            stays = self._held() | set(keep)
            for folder, size in sizes.items():
                if total <= most:
                    break
                if folder.name in stays:
                    continue
                aside = folder.with_name(f"{_GONE}{uuid4().hex}")
                with suppress(OSError):  # another process was faster
                    folder.rename(aside)
                    gone.append((folder.name, aside))
                total -= size
        for _, aside in gone:
            shutil.rmtree(aside, ignore_errors=True)
        for left in self.folder.glob(f"[!.]*/{_GONE}*"):  # of a process that was killed meanwhile
            shutil.rmtree(left, ignore_errors=True)
        return [key for key, _ in gone]

    @property
    def locks(self) -> Path:
        """Where processes say what they use and what they are computing."""
        return self.folder.with_name(f"{self.folder.name}-in-use")

    def _evicting(self) -> FileLock:
        """Held to evict, and to say what must not be: one at a time, so that nobody reads what is going."""
        self.locks.mkdir(parents=True, exist_ok=True)
        return FileLock(self.locks / "evicting")

    def _held(self) -> set[str]:
        """Keys that living processes hold; the notes of dead ones are taken away."""
        held: set[str] = set()
        for note in self.locks.glob("*.keys"):
            lock = note.with_suffix(".lock")
            try:
                with FileLock(lock, timeout=0):
                    note.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
            except Timeout:
                with suppress(FileNotFoundError):  # given up in between
                    held |= set(note.read_text(encoding="utf-8").split())
        return held

    @staticmethod
    def _unwritable(folder: Path, error: OSError) -> ContransError:
        return ContransError(
            f"The output of a step cannot be written to {folder} ({error.strerror}); free space or "
            f"set CONTRANS_HOME to another folder."
        )
