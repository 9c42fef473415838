"""What runs on a machine, which is a home of its own here, and waiting for what it does."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 900.0  # for a machine that is busy with other things


def until(found: Callable[[], Any], *, before: "subprocess.Popen[str] | None" = None) -> Any:
    """What is found once it is something, before a process has ended if one is given."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        over = before is not None and before.poll() is not None
        value = found()
        if value:
            return value
        assert not over, before and before.communicate()
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def steps(home: Path) -> set[str]:
    """Keys of the steps whose output a home has."""
    return {path.name for path in (home / "steps").glob("[!.]*/[!.]*")}


def processes(home: Path, *words: str) -> dict[int, str]:
    """Command lines of the processes of a home that have all words in it, by process number."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        mine = f"CONTRANS_HOME={home}".encode() in environment and state != "Z"
        if mine and all(word in command for word in words):
            found[int(folder.name)] = command
    return found
