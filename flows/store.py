"""What steps leave behind: one folder of files per content key, there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from contrans.errors import ContransError


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
            raise ContransError(
                f"The output of a finished step cannot be read ({error.filename}: {error.strerror}); "
                f"delete {folder} and run again."
            ) from error

    def write(self, key: str, files: Mapping[str, bytes]) -> None:
        """Keeps the files of a key. Whoever comes second finds the first one's and leaves them.

        Raises:
            ContransError: they cannot be written; then nothing of them is left.
        """
        final = self.path(key)
        part = None
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{key[:8]}-", dir=final.parent))
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
            raise ContransError(
                f"The output of a step cannot be written to {final.parent} ({error.strerror}); free space or "
                f"set CONTRANS_HOME to another folder."
            ) from error
        finally:
            if part is not None and part.exists():
                shutil.rmtree(part, ignore_errors=True)
