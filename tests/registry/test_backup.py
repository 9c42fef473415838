import json
import os
import random
import resource
import signal
import tarfile
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from contrans.errors import RegistryError
from registry import Registry
from registry.archive import Content, reading, writing
from tests.registry.conftest import make_chain
from tests.registry.workers import as_ordinary_user, snapshot

NOW = timedelta(0)


def _fill(registry: Registry) -> None:
    registry.start_run("run", spec={"a": [1, 0.1]}, spec_hash="h", commit="c")
    made = make_chain(registry)
    make_chain(registry, note="again, “twice”")
    registry.protect("production", "kl < 1")
    registry.set_alias(made["transplant"], "production", force=True)
    registry.tag(made["map"], "paper")
    registry.describe_concept("anger", family="emotion")
    registry.link("run", made["map"])


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_each_database_is_restored_from_the_others_backup(
    registry: Registry, tmp_path: Path, target: str, request: pytest.FixtureRequest
) -> None:
    _fill(registry)
    header = registry.backup(tmp_path / "backup.tar")
    assert (header["content_digest"], header["rows"]["version"]) == (registry.content_digest(), 10)
    url = str(tmp_path / "new.db") if target == "sqlite" else request.getfixturevalue("fresh_postgres_url")
    with Registry.restore(tmp_path / "backup.tar", url, blobs=tmp_path / "new") as other:
        assert other.content_digest() == registry.content_digest()
        assert other.check(grace=NOW) == []
        assert other.list() == registry.list()
        assert other.runs() == registry.runs()
        assert other.protections() == registry.protections()
        moves = registry.alias_history("anger", "production")
        assert other.alias_history("anger", "production") == moves
        assert moves[0].forced
        assert other.tags("map:smollm2/gemma-3") == ("paper",)
        assert other.concepts() == registry.concepts()
        assert other.search("twice", kind="map") == []
        assert other.search("twice", kind="vector") == registry.search("twice", kind="vector")
        assert other.results("anger/gemma-3/emotion") == registry.results("anger/gemma-3/emotion")
        third = make_chain(other, note="third")
        assert (third["vector"].number, third["vector"].id) == (3, registry.list()[0].id + 1)
        other.set_alias(third["transplant"], "production", force=True)
    with pytest.raises(RegistryError, match="holds something already; restore into a new one"):
        Registry.restore(tmp_path / "backup.tar", url, blobs=tmp_path / "new")
    assert Registry.open(url, blobs=tmp_path / "new").get("anger").number == 3


def test_a_backup_while_others_write_is_one_state(registry: Registry, tmp_path: Path) -> None:
    done = threading.Event()

    def write() -> None:
        i = 0
        while not done.is_set():
            i += 1
            registry.register("text_set", "t", manifest={"hash": str(i)}, files={"t": str(i).encode()})

    make_chain(registry)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        while len(registry.list("text_set")) < 3:
            pass
        header = registry.backup(tmp_path / "b")
    finally:
        done.set()
        writer.join()
    with Registry.restore(tmp_path / "b", tmp_path / "new.db", blobs=tmp_path / "new") as other:
        assert other.check(grace=NOW) == []
        assert other.content_digest() == header["content_digest"]
        numbers = sorted(version.number for version in other.list("text_set") if version.name == "t")
        assert numbers == list(range(1, len(numbers) + 1))


def test_restoring_into_an_empty_registry(sqlite_registry: Registry, tmp_path: Path) -> None:
    make_chain(sqlite_registry)
    sqlite_registry.backup(tmp_path / "b")
    Registry.open(tmp_path / "empty.db").close()
    with Registry.restore(tmp_path / "b", tmp_path / "empty.db", blobs="memory://restored") as other:
        assert other.content_digest() == sqlite_registry.content_digest()
    with pytest.raises(RegistryError, match="cannot be read"):
        Registry.restore(tmp_path / "nosuch", tmp_path / "x.db")
    assert not (tmp_path / "x.db").exists()


def test_a_backup_that_cannot_be_whole_is_not_written(sqlite_registry: Registry, tmp_path: Path) -> None:
    made = make_chain(sqlite_registry)
    (tmp_path / "b").write_text("an older one")
    sha256 = sqlite_registry.files(made["map"])["map.safetensors"]
    (tmp_path / "blobs" / sha256[:2] / sha256).unlink()
    with pytest.raises(RegistryError, match="is missing from the store"):
        sqlite_registry.backup(tmp_path / "b")
    assert (tmp_path / "b").read_text() == "an older one"
    assert not list(tmp_path.glob(".b.*"))
    with pytest.raises(RegistryError, match=r"cannot be written \(No such file"):
        sqlite_registry.backup(tmp_path / "no" / "folder")


def test_a_full_disk_keeps_the_older_backup(sqlite_registry: Registry, tmp_path: Path) -> None:
    sqlite_registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": os.urandom(300_000)})
    sqlite_registry.backup(tmp_path / "b")
    before = snapshot(tmp_path)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        sqlite_registry.backup(tmp_path / "b")

    for path in (*tmp_path.parents[:-1], tmp_path, *tmp_path.rglob("*")):
        if path.is_relative_to(tmp_path.parents[1]):
            path.chmod(0o777)
    said = as_ordinary_user(limited)
    assert said.startswith(f"RegistryError: The archive {tmp_path / 'b'} cannot be written")
    after = snapshot(tmp_path)
    assert after["b"] == before["b"]
    assert {name for name in after if ".part" in name} == set()


def test_archives_have_the_rights_of_the_umask(sqlite_registry: Registry, tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        sqlite_registry.backup(tmp_path / "b")
    finally:
        os.umask(old)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600


def test_newer_and_other_archives(sqlite_registry: Registry, tmp_path: Path) -> None:
    make_chain(sqlite_registry)
    with writing(tmp_path / "schema", "backup", {"schema": "9999", "content_digest": ""}):
        pass
    with writing(tmp_path / "format", "backup", {"format_version": 2}):
        pass
    sqlite_registry.backup(tmp_path / "backup")
    sqlite_registry.export(["anger"], tmp_path / "export")
    (tmp_path / "text").write_text("not an archive")
    with tarfile.open(tmp_path / "tar", "w") as tar:
        tar.add(tmp_path / "text", "../outside")
    for name, message in (
        ("schema", r"newer version of contrans \(schema 9999"),
        ("format", "has the format 2, and this version of contrans reads up to 1"),
        ("export", "is no backup of a registry; it is an export"),
        ("text", "is damaged or was made by something else"),
        ("tar", "the member '../outside' does not belong there"),
    ):
        with pytest.raises(RegistryError, match=message):
            Registry.restore(tmp_path / name, tmp_path / "new" / "registry.db")
    with pytest.raises(RegistryError, match="is no export of a registry; it is a backup"):
        sqlite_registry.import_versions(tmp_path / "backup")
    assert not (tmp_path / "new").exists()


def test_rows_that_do_not_belong_together_are_refused(sqlite_registry: Registry, tmp_path: Path) -> None:
    """Archives whose hashes are right, but not what they hold."""
    make_chain(sqlite_registry)
    sqlite_registry.backup(tmp_path / "good")
    with reading(tmp_path / "good") as good:
        header, tables = good.header, {name: list(good.rows(name)) for name in good.header["rows"]}
        blobs = {sha256: good.get(sha256, size) for sha256, size in good.blobs.items()}

    def forged(change: str, value: object) -> Path:
        changed = json.loads(json.dumps(tables))
        table, number, column = change.split()
        changed[table][int(number)][column] = value
        with writing(tmp_path / "forged", "backup", header) as archive:
            for name, rows in changed.items():
                archive.add_rows(name, rows)
            for sha256, data in blobs.items():
                archive.add_blob(sha256, data)
        return tmp_path / "forged"

    for change, value, message in (
        ("file 0 version_id", 99, "points at one that it does not hold"),
        ("version 0 number", 2, "its rows are not those that it names"),
        ("version 0 created", "yesterday", "a row of version does not fit"),
        ("version 0 created", 5, "a row of version does not fit"),
        ("version 0 kind", None, "a row of version does not fit"),
        ("version 0 id", {"a": 1}, "a row of version does not fit"),
        ("version 0 more", 1, "has other columns"),
        ("blob 0 size", 1, "does not hold the blob"),
    ):
        with pytest.raises(RegistryError, match=message):
            Registry.restore(forged(change, value), tmp_path / "new.db", blobs=tmp_path / "new")
        with Registry.open(tmp_path / "new.db", blobs=tmp_path / "new") as other:
            assert other.list() == []
    Registry.restore(forged("version 0 number", 1), tmp_path / "new.db", blobs=tmp_path / "new").close()


@pytest.mark.parametrize("content", ["backup", "export"])
def test_any_damage_to_an_archive_is_found_before_anything_is_written(
    sqlite_registry: Registry, tmp_path: Path, content: Content
) -> None:
    make_chain(sqlite_registry)
    path = tmp_path / "archive"
    if content == "backup":
        sqlite_registry.backup(path)
    else:
        sqlite_registry.export(["anger"], path)
    good, chance, harmless = path.read_bytes(), random.Random(0), 0
    with reading(path) as archive:
        blobs = archive.blobs
    wanted = len(good.rstrip(b"\0"))
    for round_ in range(60):
        data = bytearray(good)
        if round_ % 3 == 0:
            del data[chance.randrange(wanted) :]
        else:
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(wanted)] = chance.randrange(256)
        path.write_bytes(data)
        try:
            with reading(path) as archive:
                assert archive.wanted(content).blobs == blobs  # what was hit does not count, such as a member's time
        except RegistryError:
            continue
        harmless += 1
    assert harmless < 30
