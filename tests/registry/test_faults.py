"""Disks that fill up and places that cannot be written: a clear error, and nothing changed."""

import os
import resource
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from contrans.errors import RegistryError
from registry import NewVersion, Registry
from tests.registry.conftest import make_chain
from tests.registry.workers import as_ordinary_user, snapshot

LIMIT = 2_000_000  # bytes that a file may have; the database is smaller


def _open_up(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)


def _on_a_full_disk(function: Callable[[], object]) -> str:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
        function()

    return as_ordinary_user(limited)


def test_no_space_for_a_blob(open_folder: Path) -> None:
    place = open_folder / "registry.db"
    with Registry.open(place) as registry:
        make_chain(registry)
        before = registry.content_digest()
    _open_up(open_folder)
    blobs = snapshot(open_folder / "blobs")

    def register() -> None:
        large = {"t": os.urandom(LIMIT + 1)}
        Registry.open(place).register("text_set", "t", manifest={"hash": "h"}, files=large)

    said = _on_a_full_disk(register)
    assert said.startswith("RegistryError: The blob store")
    assert "File too large" in said
    assert said.endswith("Nothing was registered.")
    with Registry.open(place) as registry:
        assert registry.content_digest() == before
        assert registry.check(grace=timedelta(0)) == []
    assert snapshot(open_folder / "blobs") == blobs


def test_no_space_for_the_database(open_folder: Path) -> None:
    place = open_folder / "registry.db"
    with Registry.open(place) as registry:
        make_chain(registry)
        before = registry.content_digest()
    _open_up(open_folder)

    def register() -> None:
        text = "x" * 100_000
        new = [NewVersion(kind="text_set", name="t", manifest={"hash": str(i), "long": text}) for i in range(50)]
        Registry.open(place).register_many(new)

    assert _on_a_full_disk(register).startswith(f"RegistryError: The registry {place} ")
    with Registry.open(place) as registry:
        assert registry.content_digest() == before
        assert registry.check(grace=timedelta(0)) == []
        assert registry.register("text_set", "t", manifest={"hash": "h"}).number == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda registry: registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": b"text"}),
        lambda registry: registry.set_alias("anger", "production"),
        lambda registry: registry.protect("production", "kl < 1"),
        lambda registry: registry.tag("anger", "paper"),
        lambda registry: registry.repair(),
        lambda registry: registry.gc(grace=timedelta(0)),
    ],
    ids=["register", "set_alias", "protect", "tag", "repair", "gc"],
)
def test_a_read_only_registry(open_folder: Path, change: Callable[[Registry], object]) -> None:
    place = open_folder / "registry.db"
    with Registry.open(place) as registry:
        make_chain(registry)
        registry._blobs.put(b"stray")
    for path in open_folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    open_folder.chmod(0o555)
    before = snapshot(open_folder)
    said = as_ordinary_user(lambda: change(Registry.open(place)))
    assert said.startswith("RegistryError: The ")
    assert "your rights" in said
    assert snapshot(open_folder) == before
    for path in (open_folder, *open_folder.rglob("*")):
        path.chmod(0o755)


def test_an_archive_cannot_be_imported_onto_a_full_disk(open_folder: Path, tmp_path: Path) -> None:
    with Registry.open(tmp_path / "source.db", blobs=tmp_path / "source") as source:
        source.register("text_set", "t", manifest={"hash": "h"}, files={"t": os.urandom(LIMIT + 1)})
        source.export(["t"], open_folder / "export")
        source.backup(open_folder / "backup")
    place = open_folder / "registry.db"
    Registry.open(place).close()
    _open_up(open_folder)
    for act in (
        lambda: Registry.open(place).import_versions(open_folder / "export"),
        lambda: Registry.restore(open_folder / "backup", place),
    ):
        assert "File too large" in _on_a_full_disk(act)
        with Registry.open(place) as registry:
            assert registry.list() == []
    with pytest.raises(RegistryError, match="no version named 't'"):
        Registry.open(place).get("t")
