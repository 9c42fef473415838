"""Files that are read once, and again when they have changed."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

Read = TypeVar("Read")


def read_once(read: Callable[[Path], Read]) -> Callable[[Path], Read]:
    """Remembers what a file held, until its size, its time or the file itself is another one.

    Args:
        read: reads a path; what it raises is not remembered.
    """
    known: dict[Path, tuple[tuple[int, int, int], Read]] = {}

    @wraps(read)
    def reading(path: Path) -> Read:
        path = Path(path).absolute()
        try:
            stat = path.stat()
        except OSError:
            return read(path)  # for its error
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if path not in known or known[path][0] != stamp:
            known[path] = (stamp, read(path))
        return known[path][1]

    return reading
