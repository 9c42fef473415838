import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, inspect, text

from contrans.errors import RegistryError
from registry import Registry
from registry.base import Base
from registry.blobs import BlobStore
from registry.database import Database
from registry.migrate import alembic_config, downgrade, upgrade
from registry.schema import SCHEMA, VERSION_TABLE
from tests.registry.conftest import make_chain

RELEASED = Path(__file__).parent / "released"  # the database of each released schema, filled, as SQLite's own dump
DIGESTS = {"0001": "5ff222e851b4646c7dd0bf7eb82c92ab98486f1ea9cbc253ea90d24077875327"}

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "test"
down_revision = "{head}"
branch_labels = depends_on = None


def upgrade():
    with op.batch_alter_table("version") as batch:
        batch.add_column(sa.Column("protected", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch.alter_column("number", type_=sa.BigInteger())
    {then}


def downgrade():
    with op.batch_alter_table("version") as batch:
        batch.drop_column("protected")
        batch.alter_column("number", type_=sa.Integer())
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "fresh.db")
    return request.getfixturevalue("fresh_postgres_url")


def _next(folder: Path, then: str = "") -> Path:
    (folder / "more").mkdir()
    (folder / "more" / "next.py").write_text(NEXT.format(head=SCHEMA, then=then))
    return folder / "more"


def _load(url: str, schema: str) -> Database:
    """A database as the release with that schema left it."""
    dump = (RELEASED / f"{schema}.sql").read_text(encoding="utf-8")
    database = Database(url)
    if database.path is not None:
        with closing(sqlite3.connect(database.path)) as connection:
            connection.executescript(dump)
        return database
    upgrade(database, schema)
    rows: dict[str, list[str]] = {}
    for line in re.findall(r"^INSERT INTO .*?\);$", dump, re.DOTALL | re.MULTILINE):
        rows.setdefault(line.split('"')[1], []).append(line)
    with database.migrating() as connection:
        connection.exec_driver_sql("SET TIME ZONE 'UTC'")
        metadata = MetaData()
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            for line in rows.get(table.name, []) if table.name != VERSION_TABLE else []:
                connection.exec_driver_sql(line.replace("%", "%%"))
            if "id" in table.columns and table.name in ("version", "alias_history", "result", "publication"):
                reset = f"SELECT setval('{table.name}_id_seq', (SELECT max(id) FROM {table.name}))"
                connection.exec_driver_sql(reset)
    return database


def _shape(database: Database) -> dict[str, object]:
    with database.reading() as session:
        found = inspect(session.connection())
        return {
            name: (
                sorted((column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(name)),
                sorted((index["name"] or "", tuple(index["column_names"])) for index in found.get_indexes(name)),
            )
            for name in found.get_table_names()
        }


@pytest.mark.parametrize("schema", sorted(DIGESTS))
def test_data_of_a_released_schema_goes_up_and_down(fresh_url: str, tmp_path: Path, schema: str) -> None:
    database = _load(fresh_url, schema)
    before = _shape(database)
    database.close()
    for data in (b"{}", b"map", b"vector ", b"transplant", b"vector it's the second"):
        BlobStore(tmp_path / "blobs").put(data)
    for _ in range(2):
        with Registry.open(fresh_url, blobs=tmp_path / "blobs") as registry:
            assert registry.content_digest() == DIGESTS[schema]
            assert registry.check(grace=timedelta(0)) == []
            assert str(registry.get("anger@production")) == "transplant:anger/gemma-3@2"
            moves = registry.alias_history("anger", "production")
            assert [(move.version.number, move.forced) for move in moves] == [(1, False), (2, False)]
            assert moves[0].moved_at == datetime(2026, 10, 1, 12, 0, 12, 250_000, tzinfo=UTC)
            assert registry.concepts() == {"anger": ("emotion", "Being angry; “hot”.")}
            assert len(registry.run_versions("run-1")) == 7
            assert [str(version) for version in registry.search("second", kind="vector")] == ["vector:anger/smollm2@2"]
            assert len(registry.search(family="emotion")) == 6
            registry.tag("anger", "paper")
            registry.protect("production", "kl < 1")
            assert make_chain(registry)["vector"].number == 1
            registry.close()
            downgrade(registry._database, schema)
            assert _shape(registry._database) == before
    with Registry.open(fresh_url, blobs=tmp_path / "blobs") as registry:
        assert make_chain(registry, note="new")["transplant"].number == 3
        assert registry.check() == []


def _columns(database: Database) -> set[str]:
    with database.reading() as session:
        return {column["name"] for column in inspect(session.connection()).get_columns("version")}


def test_the_constant_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_current_head() == SCHEMA


def test_migrations_make_the_tables_of_the_schema(url: str) -> None:
    database = Database(url)
    with database.reading() as session:
        settings = {"version_table": VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(session.connection(), opts=settings)
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_upgrade_and_downgrade_keep_the_content(fresh_url: str, tmp_path: Path) -> None:
    more = _next(tmp_path)
    with Registry.open(fresh_url, blobs=tmp_path / "blobs") as registry:
        made = make_chain(registry)
        registry.set_alias(made["transplant"], "production")
        before = registry.content_digest()
        registry.close()
        upgrade(registry._database, "test", extra=more)
        assert "protected" in _columns(registry._database)
        for _ in range(2):
            assert registry.content_digest() == before
            assert registry.check() == []
            assert registry.get("anger@production") == made["transplant"]
            assert len(registry.lineage("anger").versions) == 6
            registry.close()
            downgrade(registry._database, SCHEMA, extra=more)
        assert "protected" not in _columns(registry._database)
        assert make_chain(registry, note="new")["vector"].number == 2
    with Registry.open(fresh_url, blobs=tmp_path / "blobs") as registry:
        assert len(registry.list()) == 10


@pytest.mark.parametrize("then", ["raise OSError(28, 'No space left on device')", "op.execute('nonsense')"])
def test_failed_upgrade_changes_nothing(fresh_url: str, tmp_path: Path, then: str) -> None:
    more = _next(tmp_path, then)
    with Registry.open(fresh_url, blobs=tmp_path / "blobs") as registry:
        make_chain(registry)
        before = registry.content_digest()
        registry.close()
        with pytest.raises((RegistryError, OSError)):
            upgrade(registry._database, "test", extra=more)
        assert "protected" not in _columns(registry._database)
        assert registry.content_digest() == before
        assert registry.check() == []


def test_upgrade_that_would_lose_references_is_refused(tmp_path: Path) -> None:
    more = _next(tmp_path, """op.execute("DELETE FROM blob")""")
    with Registry.open(tmp_path / "registry.db") as registry:
        make_chain(registry)
        with pytest.raises(RegistryError, match="would lose references; nothing was changed"):
            upgrade(registry._database, "test", extra=more)
        assert registry.check() == []


def test_down_to_nothing_and_up_again(fresh_url: str, tmp_path: Path) -> None:
    with Registry.open(fresh_url, blobs=tmp_path / "blobs") as registry:
        make_chain(registry)
        downgrade(registry._database, "base")
    with Database(fresh_url).reading() as session:
        assert inspect(session.connection()).get_table_names() == [VERSION_TABLE]
        assert session.execute(text(f"SELECT count(*) FROM {VERSION_TABLE}")).scalar() == 0
    with Registry.open(fresh_url, blobs=tmp_path / "blobs") as registry:
        assert registry.list() == []
        make_chain(registry)
        assert registry.check() == []
