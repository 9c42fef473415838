from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from contrans.errors import RegistryError
from registry import Registry
from registry.base import Base
from registry.database import Database
from registry.migrate import alembic_config, downgrade, upgrade
from registry.schema import SCHEMA, VERSION_TABLE
from tests.registry.conftest import make_chain

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
