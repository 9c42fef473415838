import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from contrans.errors import ModelError
from contrans.models.cache import MANIFEST, build_once, model_folder, remember, remembered, stamp


def fill(work: Path) -> None:
    (work / "weights").write_bytes(b"w" * 1000)
    (work / MANIFEST).write_text("{}")


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir() if ".tmp-" in path.name]


def test_builds_once() -> None:
    folder = model_folder("a")
    calls: list[Path] = []
    for _ in range(2):
        build_once(folder, lambda work: (calls.append(work), fill(work))[1], needed=1)
    assert len(calls) == 1
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "weights"]
    assert hidden(folder) == []


def test_an_error_leaves_nothing() -> None:
    folder = model_folder("a")

    def broken(work: Path) -> None:
        fill(work)
        raise ModelError("broken")

    with pytest.raises(ModelError, match="broken"):
        build_once(folder, broken, needed=1)
    assert not folder.exists()
    assert hidden(folder) == []


SLOW = """
import sys, time
from pathlib import Path
from contrans.models.cache import build_once, model_folder, MANIFEST
def build(work):
    (work / "weights").write_bytes(b"half")
    print("built", flush=True)
    time.sleep(float(sys.argv[1]))
    (work / MANIFEST).write_text("{}")
build_once(model_folder("a"), build, needed=1)
"""


def test_a_killed_build_is_taken_over() -> None:
    folder = model_folder("a")
    process = subprocess.Popen([sys.executable, "-c", SLOW, "60"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not folder.exists()
    assert len(hidden(folder)) == 1
    build_once(folder, fill, needed=1)
    assert (folder / "weights").stat().st_size == 1000
    assert hidden(folder) == []


def test_of_several_processes_one_builds() -> None:
    command = [sys.executable, "-c", SLOW, "0.3"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    built = [process.communicate()[0].count("built") for process in processes]
    assert sum(built) == 1
    assert [process.returncode for process in processes] == [0] * 4


def test_too_little_space_is_seen_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ModelError, match=r"takes 2\.0 GB"):
        build_once(model_folder("a"), fill, needed=2_000_000_000)


def test_a_disk_that_fills_up_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    folder = model_folder("a")
    with pytest.raises(ModelError, match="is full"):
        build_once(folder, fill, needed=1)
    assert not folder.exists()
    assert hidden(folder) == []


def test_an_unusable_cache_is_a_sentence(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    with pytest.raises(ModelError, match="CONTRANS_CACHE"):
        build_once(model_folder("a"), fill, needed=1)


def test_notes_are_kept_by_stamp(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "x"
    path.write_text("1")
    key = ["sha", stamp([path])]
    assert remembered(key) is None
    remember(key, "abc")
    assert remembered(key) == "abc"
    path.write_text("22")
    assert remembered(["sha", stamp([path])]) is None
    for note in (cache / "known").iterdir():
        note.write_text("{")
    assert remembered(key) is None
