import sqlite3
import traceback
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from contrans.errors import RegistryError
from registry import Registry
from registry import database as module
from registry.masking import masked
from registry.schema import SCHEMA
from tests.registry.workers import as_ordinary_user, snapshot


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:word@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:wo@rd@host/db", "postgresql://me:***@host/db"),
        ("s3://key:secret@bucket/x", "s3://key:***@bucket/x"),
        ("postgresql://host/db?user=me&password=word&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("Authorization: Bearer abc.def-1==, and more", "Authorization: Bearer ***, and more"),
        ("token hf_" + "aB3" * 8 + " is wrong", "token *** is wrong"),
        ("sqlite:////a/b@c:d.db", "sqlite:////a/b@c:d.db"),
        ("/a/b:c@d", "/a/b:c@d"),
    ],
)
def test_masking(url: str, shown: str) -> None:
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///:memory:", "plain file"),
        ("sqlite://", "plain file"),
        ("sqlite:///file:x?mode=ro&uri=true", "plain file"),
        ("mysql://me:word@host/db", "not on mysql"),
        ("nosuch://me:word@host/db", "not a database URL"),
        ("postgresql://me:word@host:port/db", "not a database URL"),
    ],
)
def test_other_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(RegistryError, match=message) as caught:
        Registry.open(url, blobs="memory://x")
    assert "word" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("content", [b"garbage", b"SQLite format 3", b"SQLite format 3\0" + b"x" * 5000])
def test_garbage_is_no_registry_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "registry.db"
    place.write_bytes(content)
    with pytest.raises(RegistryError, match=r"registry\.db is not a database"):
        Registry.open(place)
    assert snapshot(tmp_path) == {"registry.db": content}


def test_truncated_registry(sqlite_url: str) -> None:
    place = Path(sqlite_url)
    place.write_bytes(place.read_bytes()[:5000])
    with pytest.raises(RegistryError, match="is damaged; restore it from a copy"):
        Registry.open(place)


def test_database_of_something_else(tmp_path: Path) -> None:
    place = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(place)) as connection:
        connection.execute("CREATE TABLE experiments (id INTEGER)")
    before = place.read_bytes()
    with pytest.raises(RegistryError, match=r"is a database of something else .*'experiments'"):
        Registry.open(place)
    assert place.read_bytes() == before


def test_newer_registry(url: str, tmp_path: Path) -> None:
    with Registry.open(url, blobs=tmp_path / "blobs") as registry, registry._database.writing() as session:
        session.execute(text("UPDATE registry_schema SET version_num = '9999'"))
    try:
        with pytest.raises(RegistryError, match=r"newer version of contrans \(schema 9999.*upgrade contrans"):
            Registry.open(url, blobs=tmp_path / "blobs")
    finally:  # the next test may use the same database
        with registry._database.writing() as session:
            session.execute(text(f"UPDATE registry_schema SET version_num = '{SCHEMA}'"))
        registry.close()


def test_missing_registry_is_not_made_unless_wanted(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for name in ("registry.db", "empty.db", "no/folder/registry.db"):
        with pytest.raises(RegistryError, match="There is no registry at"):
            Registry.open(tmp_path / name, create=False)
    assert snapshot(tmp_path) == {"empty.db": b""}


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RegistryError, match="Is a directory"):
        Registry.open(tmp_path)
    with pytest.raises(RegistryError, match="Not a directory"):
        Registry.open(tmp_path / "file" / "registry.db")


def test_folder_without_rights(open_folder: Path) -> None:
    with Registry.open(open_folder / "full" / "registry.db") as registry:
        registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": b"text"})
    (open_folder / "empty").mkdir()
    for folder in ("full", "empty"):
        (open_folder / folder).chmod(0o555)
    before = snapshot(open_folder)

    said = as_ordinary_user(Registry.open, open_folder / "empty" / "registry.db")
    assert said.startswith("RegistryError: The registry")
    assert "cannot be created or upgraded (Permission denied)" in said

    def register() -> None:
        place = open_folder / "full" / "registry.db"
        Registry.open(place, blobs="memory://x").register("text_set", "t", manifest={"hash": "i"})

    assert "check" in as_ordinary_user(register)
    assert snapshot(open_folder) == before


def test_read_only_file(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Registry.open(sqlite_url) as registry:
        registry.register("text_set", "t", manifest={"hash": "h"})
        registry.close()
        real = sqlite3.connect
        monkeypatch.setattr(
            registry._database._engine.dialect,
            "connect",
            lambda path, **options: real(f"file:{path}?mode=ro", uri=True, check_same_thread=False),
        )
        with pytest.raises(RegistryError, match=r"is read-only; check your rights.*nothing was changed"):
            registry.register("text_set", "t", manifest={"hash": "i"})


def test_locked_registry(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.1)
    with Registry.open(sqlite_url) as registry, closing(sqlite3.connect(sqlite_url)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryError, match="is in use: another program"):
            registry.register("text_set", "t", manifest={"hash": "h"})
        assert registry.list() == []
        other.execute("ROLLBACK")
        assert registry.register("text_set", "t", manifest={"hash": "h"}).number == 1


def test_settings_of_sqlite(sqlite_registry: Registry) -> None:
    found = {}
    with sqlite_registry._database.reading() as session:
        for pragma in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous"):
            found[pragma] = session.execute(text(f"PRAGMA {pragma}")).scalar()
    assert found == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 30_000, "synchronous": 1}


def test_a_registry_works_on_after_a_fork(url: str, tmp_path: Path) -> None:
    with Registry.open(url, blobs=tmp_path / "blobs") as registry:
        registry.register("text_set", "t", manifest={"hash": "parent"})
        assert registry.get("t").number == 1
        (tmp_path / "blobs").mkdir(exist_ok=True)
        for path in (*tmp_path.parents[:-1], tmp_path, *tmp_path.iterdir()):
            if path.is_relative_to(tmp_path.parents[1]):
                path.chmod(0o777)
        said = as_ordinary_user(registry.register, "text_set", "t")
        assert "missing" in said  # the call got as far as its arguments
        child = as_ordinary_user(lambda: registry.register("text_set", "t", manifest={"hash": "child"}))
        assert child == ""
        assert registry.register("text_set", "t", manifest={"hash": "parent again"}).number == 3


def test_postgresql_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"me:\*\*\*@127\.0\.0\.1:1/db cannot be used") as caught:
        Registry.open(f"postgresql://me:{'hidden'}@127.0.0.1:1/db", blobs=tmp_path)
    assert "me:hidden" not in "".join(traceback.format_exception(caught.value))


def test_wrong_password_is_not_shown(postgres_server: str, tmp_path: Path) -> None:
    wrong = make_url(postgres_server).set(password="wr0ng-w0rd").render_as_string(hide_password=False)
    with pytest.raises(RegistryError, match=r"cannot be used.*password authentication failed") as caught:
        Registry.open(wrong, blobs=tmp_path)
    assert "wr0ng" not in "".join(traceback.format_exception(caught.value))


def test_postgresql_needs_a_place_for_blobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CONTRANS_BLOBS", raising=False)
    with pytest.raises(RegistryError, match="set CONTRANS_BLOBS"):
        Registry.open("postgresql://me:word@127.0.0.1:1/db")
    monkeypatch.setenv("CONTRANS_BLOBS", str(tmp_path))
    with pytest.raises(RegistryError, match="cannot be used"):
        Registry.open("postgresql://me:word@127.0.0.1:1/db")


def test_nothing_shows_the_password(fresh_postgres_url: str, tmp_path: Path) -> None:
    with Registry.open(fresh_postgres_url, blobs=tmp_path) as registry:
        assert str(make_url(fresh_postgres_url).password) not in repr(registry)
