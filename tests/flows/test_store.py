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


def test_files_of_a_name_are_found_the_last_used_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "steps")
    assert store.files("a") == []
    for n in range(3):
        store.write(f"{n}" * 64, {"a": b"x", f"b{n}": b""})
        os.utime(store.path(f"{n}" * 64), (n, n))
    store.used("0" * 64)
    store.used("f" * 64)  # not there: nothing to note
    assert [path.parent.name[0] for path in store.files("a")] == ["0", "2", "1"]
    assert [path.parent.name[0] for path in store.files("b2")] == ["2"]


@pytest.mark.parametrize(
    ("most", "coming", "held", "keep", "left"),
    [
        (30, 0, "", "", "0123"),
        (30, 10, "", "", "123"),
        (29, 0, "", "", "123"),
        (10, 0, "", "", "23"),
        (0, 0, "", "", "3"),  # a file of nothing is in no one's way
        (10, 0, "0", "", "03"),
        (10, 0, "0", "1", "01"),
        (0, 0, "012", "", "012"),
    ],
)
def test_the_least_used_make_room(tmp_path: Path, most: int, coming: int, held: str, keep: str, left: str) -> None:
    store, other = Store(tmp_path / "steps"), Store(tmp_path / "steps")
    for n, size in enumerate((10, 10, 10, 0)):
        store.write(f"{n}" * 64, {"a": b"x" * size})
        os.utime(store.path(f"{n}" * 64), (n, n))
    store.write("9" * 64, {"b": b"x" * 99})
    with other.holding(n * 64 for n in held):
        gone = store.make_room("a", most, coming=coming, keep=[n * 64 for n in keep])
    assert sorted(n for n in "0123" if store.has(n * 64)) == sorted(left)
    assert {key[0] for key in gone} == set("0123") - set(left)
    assert store.has("9" * 64)
    assert not list((tmp_path / "steps").glob("*/.*"))
    assert [path.name for path in (tmp_path / "steps-in-use").glob("*.*")] == []


def test_what_was_held_may_go_afterwards(tmp_path: Path) -> None:
    store = Store(tmp_path / "steps")
    with store.holding([KEY]):
        store.write(KEY, {"a": b"x"})
        with store.holding([KEY]):
            assert store.make_room("a", 0) == []
        assert store.make_room("a", 0) == []
    assert store.make_room("a", 0) == [KEY]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(ContransError, match=r"delete .* and run again"):
        store.read(KEY)
    store.write(KEY, {"a": b"x"})
    with pytest.raises(ContransError, match=r"delete .* and run again"):
        store.read(KEY, "b")
