"""Bringing a database to this version's tables: first start, upgrade, downgrade, and what is refused."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from sqlalchemy import Connection, inspect, text

from contrans.errors import RegistryError
from registry.database import BUSY_SECONDS, Database
from registry.schema import SCHEMA, VERSION_TABLE

if TYPE_CHECKING:
    from alembic.config import Config

_ADVISORY_LOCK = 0x636F6E7472616E73  # "contrans"
_alembic_lock = threading.Lock()  # Alembic keeps the migration under way in module globals


def prepare(database: Database, *, create: bool) -> None:
    """Makes the database ready for use: creates or upgrades its tables where needed.

    Safe when many threads and processes start at once: one of them does the work.

    Args:
        database: The database.
        create: Whether a registry that does not exist yet is made.

    Raises:
        RegistryError: If there is no registry and `create` is False, if a newer version made it, or
            if it holds something else.
    """
    missing = database.is_missing()
    schema = None if missing else schema_of(database)
    if schema == SCHEMA:
        return
    if schema is None and not create:
        raise RegistryError(f"There is no registry at {database.shown}; check the place, or create one there.")
    upgrade(database)


def upgrade(database: Database, revision: str = SCHEMA, *, extra: Path | None = None) -> None:
    """Creates the tables or upgrades them to a revision, all of it or nothing.

    Args:
        database: The database.
        revision: The schema to end with.
        extra: A folder of further migrations.
    """
    with _migration(database, extra=extra) as (connection, config):
        from alembic import command

        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def downgrade(database: Database, revision: str, *, extra: Path | None = None) -> None:
    """Takes the tables back to an earlier revision, or with "base" removes them and all that they hold."""
    with _migration(database, extra=extra) as (connection, config):
        from alembic import command

        config.attributes["connection"] = connection
        command.downgrade(config, revision)


@contextmanager
def _migration(database: Database, *, extra: Path | None) -> Iterator[tuple[Connection, "Config"]]:
    config = alembic_config(extra)
    with _alembic_lock, _first_start(database), database.migrating() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        _refuse_foreign(database, _schema(connection), connection, config)
        yield connection, config
        if connection.dialect.name == "sqlite" and connection.execute(text("PRAGMA foreign_key_check")).first():
            raise RegistryError(
                f"The tables of {database.shown} would lose references; nothing was changed. Restore a copy."
            )


def alembic_config(extra: Path | None = None) -> "Config":
    """Alembic's settings; there is no alembic.ini.

    Args:
        extra: A folder of further migrations.
    """
    from alembic.config import Config

    here = Path(__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(here).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    places = [here / "versions"] + ([extra] if extra else [])
    config.set_main_option("version_locations", "\n".join(str(place).replace("%", "%%") for place in places))
    return config


def known_schemas(config: "Config | None" = None) -> set[str]:
    """The schemas that this version can migrate."""
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory.from_config(config or alembic_config()).walk_revisions()}


def schema_of(database: Database) -> str | None:
    """The schema of a database; None if it is empty.

    Raises:
        RegistryError: If it is of something else, or newer than this version.
    """
    with database.reading() as session:
        connection = session.connection()
        schema = _schema(connection)
        if schema != SCHEMA:
            _refuse_foreign(database, schema, connection, alembic_config())
    return schema


def _schema(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def _refuse_foreign(database: Database, schema: str | None, connection: Connection, config: "Config") -> None:
    if schema is None:
        tables = [name for name in inspect(connection).get_table_names() if name != VERSION_TABLE]
        if tables:
            raise RegistryError(
                f"{database.shown} is a database of something else (it holds the table {tables[0]!r}); "
                "name another file, or an empty database, for the registry."
            )
        return
    if schema not in known_schemas(config):
        raise RegistryError(
            f"The registry {database.shown} was made by a newer version of contrans (schema {schema}, "
            f"while this one knows up to {SCHEMA}); upgrade contrans, or use another registry."
        )


@contextmanager
def _first_start(database: Database) -> Iterator[None]:
    if database.path is None:
        yield
        return
    try:
        database.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database.path}.lock", timeout=2 * BUSY_SECONDS):
            _write_ahead(database, database.path)
            yield
    except Timeout as error:
        raise RegistryError(
            f"Another program has been setting up the registry {database.shown} for {2 * BUSY_SECONDS} s; "
            "wait for it, or end it and try again."
        ) from error
    except OSError as error:
        raise RegistryError(
            f"The registry {database.shown} cannot be created or upgraded ({error.strerror or error}); "
            "check your rights on its folder and the space there."
        ) from error


def _write_ahead(database: Database, path: Path) -> None:
    # The switch needs the file for itself, and SQLite does not wait for that as it does for other locks.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.Error as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise RegistryError(database.sentence(error)) from error
            time.sleep(0.02)
