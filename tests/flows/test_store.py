"""The store holds a step's output whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from contrans.errors import ContransError
from flows.store import Store

KEY = "ab" * 32


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.has(KEY)
    store.write(KEY, {"a.json": b"{}", "b.bin": b"\0\1"})
    assert store.has(KEY)
    assert store.read(KEY) == {"a.json": b"{}", "b.bin": b"\0\1"}
    assert store.read(KEY, "b.bin") == {"b.bin": b"\0\1"}


def test_the_first_writer_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(KEY, {"a": b"first"})
    store.write(KEY, {"a": b"second"})
    assert store.read(KEY) == {"a": b"first"}
    assert [p.name for p in (tmp_path / "ab").iterdir()] == [KEY]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync", full) if call == "fsync" else (Path, "rename", full)))
    store = Store(tmp_path)
    with pytest.raises(ContransError, match=r"No space left on device.*CONTRANS_HOME"):
        store.write(KEY, {"a": b"x"})
    assert not store.has(KEY)
    assert list((tmp_path / "ab").iterdir()) == []


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ContransError, match=r"delete .* and run again"):
        store.read(KEY)
    store.write(KEY, {"a": b"x"})
    with pytest.raises(ContransError, match=r"delete .* and run again"):
        store.read(KEY, "b")
