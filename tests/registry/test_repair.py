import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from contrans.errors import RegistryError
from registry import Registry
from registry.blobs import BlobStore
from registry.database import Database
from tests.registry.conftest import make_chain
from tests.registry.workers import snapshot

NOW = timedelta(0)


def _path(folder: Path, data: bytes) -> Path:
    sha256 = hashlib.sha256(data).hexdigest()
    return folder / sha256[:2] / sha256


def _states(problems: list) -> dict[str, bool]:
    return {problem.kind: problem.repaired for problem in problems}


@pytest.mark.parametrize("source", ["blobs", "backup", "export"])
def test_lost_blobs_come_back_from_a_copy(registry: Registry, tmp_path: Path, source: str) -> None:
    made = make_chain(registry)
    copy = tmp_path / "copy"
    if source == "backup":
        registry.backup(copy)
    elif source == "export":
        registry.export([made["validation"]], copy)
    else:
        BlobStore(copy).put(b"map")
        BlobStore(copy).put(b"vector ")
    _path(tmp_path / "blobs", b"map").unlink()
    _path(tmp_path / "blobs", b"vector ").write_bytes(b"Vector ")
    assert _states(registry.repair()) == {"missing": False, "corrupt": False}
    assert _states(registry.repair(source=copy)) == {"missing": True, "corrupt": True}
    assert registry.check(grace=NOW) == []
    assert registry.read(made["map"], "map.safetensors") == b"map"


def test_a_write_that_was_cut_short_before_its_end_is_found(registry: Registry, tmp_path: Path) -> None:
    make_chain(registry)
    lost = _path(tmp_path / "blobs", b"transplant")
    lost.rename(lost.with_name(".0123.part"))
    (lost.parent / ".4567.part").write_bytes(b"transplanT")
    assert _states(registry.repair()) == {"missing": True}
    assert _states(registry.repair()) == {}
    assert {problem.kind for problem in registry.check(grace=NOW)} == {"orphaned"}


DAMAGE = [
    ("INSERT INTO tag VALUES (99, 'x')", "tag 99, x", True),
    ("INSERT INTO word VALUES ('x', 99)", "word x, 99", True),
    ("UPDATE alias SET version_id = 99", "alias transplant, anger/gemma-3, production", True),
    ("INSERT INTO run_version VALUES ('nosuch', 1)", "run_version nosuch, 1", True),
    ("DELETE FROM word WHERE version_id = 5", "version 5", True),
    ("UPDATE version_name SET last = 0 WHERE kind = 'map'", "version_name map, smollm2/gemma-3", True),
    ("UPDATE version_name SET last = 5 WHERE kind = 'map'", "version_name map, smollm2/gemma-3", False),
    ("DELETE FROM blob WHERE size = 3", "file 5, map.safetensors", False),
    ("DELETE FROM text_set", "version 1", False),
    ("UPDATE alias_history SET version_id = 99", "alias_history 1", False),
]


@pytest.mark.parametrize(("change", "subject", "repaired"), DAMAGE)
def test_dangling_rows(sqlite_registry: Registry, change: str, subject: str, repaired: bool) -> None:
    made = make_chain(sqlite_registry)
    sqlite_registry.set_alias(made["transplant"], "production")
    with sqlite_registry._database.migrating() as connection:  # without the checks that stand in the way
        connection.execute(text(change))
    (problem,) = [each for each in sqlite_registry.check() if each.kind == "dangling"]
    assert (problem.subject, problem.repaired) == (subject, False)
    (problem,) = [each for each in sqlite_registry.repair() if each.kind == "dangling"]
    assert (problem.subject, problem.repaired) == (subject, repaired)
    left = [each.subject for each in sqlite_registry.check() if each.kind == "dangling"]
    assert left == ([] if repaired else [subject])
    assert len(sqlite_registry.search("ridge")) == 1


def test_gc_takes_what_no_version_needs(registry: Registry, tmp_path: Path) -> None:
    make_chain(registry)
    before = snapshot(tmp_path / "blobs")
    store = BlobStore(tmp_path / "blobs")
    stray = store.put(b"nobody's")
    (tmp_path / "blobs" / stray[:2] / ".0.part").write_bytes(b"half")
    assert registry.gc().keys == registry.gc(dry_run=True).keys == ()
    planned = registry.gc(dry_run=True, grace=NOW)
    assert planned.keys == (f"{stray[:2]}/.0.part", f"{stray[:2]}/{stray}")
    assert (planned.size, planned.dry) == (12, True)
    assert len(snapshot(tmp_path / "blobs")) == len(before) + 2
    done = registry.gc(grace=NOW)
    assert (done.keys, done.size, done.dry) == (planned.keys, 12, False)
    assert snapshot(tmp_path / "blobs") == before
    assert registry.gc(grace=NOW).keys == ()
    with pytest.raises(RegistryError, match="grace period of -1 day"):
        registry.gc(grace=timedelta(days=-1))


def test_a_blob_in_use_again_stays(tmp_path: Path) -> None:
    store, start = BlobStore(tmp_path), datetime.now(UTC)
    sha256 = store.put(b"old")
    os.utime(_path(tmp_path, b"old"), (0, 0))
    (key,) = store.strays(set(), start - timedelta(days=1))
    store.put(b"old")  # a writer that comes between
    assert store.take_back(key, start - timedelta(days=1)) is None
    assert store.get(sha256, 3) == b"old"


def test_gc_between_a_writers_blobs_and_its_rows(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst moment: a writer's blobs are stored, its rows are not, and all strays are cleared at once."""
    real = Database.writing

    def after_gc(database: Database):
        monkeypatch.setattr(Database, "writing", real)
        assert len(registry.gc(grace=NOW).keys) == 1
        return real(database)

    monkeypatch.setattr(Database, "writing", after_gc)
    version = registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": b"text"})
    assert registry.read(version, "t") == b"text"
    assert registry.check(grace=NOW) == []


def test_gc_beside_many_writers_loses_nothing(registry: Registry) -> None:
    done = threading.Event()

    def clear() -> int:
        rounds = 0
        while not done.is_set():
            registry.gc(grace=NOW)
            rounds += 1
            time.sleep(0.001)
        return rounds

    def write(worker: int) -> None:
        for i in range(12):
            files = {"own": f"{worker}-{i}".encode(), "shared": b"shared" + bytes([i])}
            registry.register("text_set", f"n{worker}", manifest={"hash": f"{worker}-{i}"}, files=files)

    with ThreadPoolExecutor(4) as pool:
        clearing = pool.submit(clear)
        list(pool.map(write, range(3)))
        done.set()
        assert clearing.result() > 0
    assert registry.check(grace=timedelta(days=1)) == []
    assert len(registry.list()) == 36
