"""A whole registry, database and blobs, in one archive, which either database can be restored from."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, DateTime, Integer, MetaData, Table, func, insert, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from contrans.errors import RegistryError
from registry.archive import Archive, writing
from registry.base import Base
from registry.blobs import BlobStore
from registry.database import Database
from registry.migrate import downgrade, known_schemas, schema_of, upgrade
from registry.schema import SCHEMA, VERSION_TABLE, BlobRow
from registry.verify import content_digest

_BATCH = 500


def backup(database: Database, blobs: BlobStore, path: Path) -> dict[str, Any]:
    """Writes a backup; see `Registry.backup`. Gives what the header says."""
    with database.reading() as session:  # one consistent state, while others go on writing
        header = {
            "schema": SCHEMA,
            "created": datetime.now(UTC).isoformat(),
            "content_digest": content_digest(session),
            "rows": {
                table.name: session.scalar(select(func.count()).select_from(table))
                for table in Base.metadata.sorted_tables
            },
        }
        with writing(path, "backup", header) as archive:
            for table in Base.metadata.sorted_tables:
                archive.add_rows(table.name, _rows(session.connection(), table))
            needed = list(session.execute(select(BlobRow.sha256, BlobRow.size).order_by(BlobRow.sha256)))
            session.rollback()  # the blobs take longest, and a version's blobs stay as they are
            for sha256, size in needed:
                archive.add_blob(sha256, blobs.get(sha256, size))
    return header


def restore(database: Database, blobs: BlobStore, archive: Archive) -> None:
    """Fills a registry that holds nothing yet from a backup; see `Registry.restore`.

    Raises:
        RegistryError: If the registry holds something, or the backup is not whole or is of a newer schema; nothing but
            blobs that no version needs is left then.
    """
    schema, digest = archive.header.get("schema"), archive.header.get("content_digest")
    if not isinstance(schema, str) or schema not in known_schemas():
        raise RegistryError(
            f"The backup {archive.path} was made by a newer version of contrans (schema {schema}, while this one knows "
            f"up to {SCHEMA}); upgrade contrans."
        )
    _make_empty(database, schema)
    for sha256, size in archive.blobs.items():
        blobs.put(archive.get(sha256, size))
    with database.migrating() as connection:  # one transaction
        metadata = MetaData()
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            if table.name != VERSION_TABLE:
                _fill(connection, table, archive)
        if connection.dialect.name == "postgresql":
            _set_counters(connection, metadata)
        elif connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise archive.damaged("a row points at one that it does not hold")
        missing = [row for row in _blobs_named(connection, metadata) if archive.blobs.get(row[0]) != row[1]]
        if missing:
            raise archive.damaged(f"it does not hold the blob {missing[0][0][:12]}")
        if content_digest(connection) != digest:
            raise archive.damaged("its rows are not those that it names")
    upgrade(database)


def _make_empty(database: Database, schema: str) -> None:
    found = None if database.is_missing() else schema_of(database)
    if found is not None:
        with database.reading() as session:
            metadata = MetaData()
            metadata.reflect(session.connection())
            for table in metadata.sorted_tables:
                if table.name != VERSION_TABLE and session.execute(select(table).limit(1)).first():
                    raise RegistryError(
                        f"The registry {database.shown} holds something already; restore into a new one, "
                        "or import versions instead."
                    )
        if found != schema:
            downgrade(database, "base")
    upgrade(database, schema)


def _rows(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    ordered = select(table).order_by(*table.primary_key.columns).execution_options(yield_per=_BATCH)
    for row in connection.execute(ordered).mappings():
        yield {key: value.isoformat() if isinstance(value, datetime) else value for key, value in row.items()}


def _fill(connection: Connection, table: Table, archive: Archive) -> None:
    batch: list[dict[str, Any]] = []
    times = [column.name for column in table.columns if isinstance(column.type, DateTime)]
    names = set(table.columns.keys())
    try:
        for row in archive.rows(table.name):
            if set(row) != names:
                raise archive.damaged(f"a row of {table.name} has other columns")
            for name in times:
                row[name] = None if row[name] is None else datetime.fromisoformat(row[name]).astimezone(UTC)
            batch.append(row)
            if len(batch) == _BATCH:
                connection.execute(insert(table), batch)
                batch = []
        if batch:
            connection.execute(insert(table), batch)
    except (TypeError, ValueError, OverflowError, SQLAlchemyError) as error:
        if isinstance(error, OperationalError):  # not the archive's fault: no space, no connection
            raise
        raise archive.damaged(f"a row of {table.name} does not fit its table") from error


def _blobs_named(connection: Connection, metadata: MetaData) -> list[tuple[str, int]]:
    table = metadata.tables[BlobRow.__tablename__]
    rows = connection.execute(select(table.c.sha256, table.c.size))
    return [(row.sha256, row.size) for row in rows]


def _set_counters(connection: Connection, metadata: MetaData) -> None:
    # Rows that bring their own ids do not move PostgreSQL's counters, which would give those ids again.
    for table in metadata.sorted_tables:
        column = table.columns.get("id")
        if column is not None and isinstance(column.type, Integer):
            sequence = connection.scalar(select(func.pg_get_serial_sequence(table.name, "id")))
            highest = connection.scalar(select(func.max(column)))
            if sequence is not None and highest is not None:
                connection.execute(select(func.setval(sequence, highest)))
