"""A registry that is opened so that nothing can change it, and what only a reader of many versions asks of it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, Pool, event, select
from sqlalchemy.orm import Session

from contrans.errors import RegistryError
from registry.blobs import BlobStore
from registry.database import Database
from registry.finding import Finding
from registry.lookup import in_batches, to_version, versions
from registry.migrate import schema_of
from registry.records import Version
from registry.schema import SCHEMA, EdgeRow, PublicationRow, VersionRow

_REFUSED = "The registry is open for reading only; change it with `contrans` or `registry.Registry`."


class ReadOnlyDatabase(Database):
    """A database that refuses to be written, whoever asks: the file is opened so, or every transaction is."""

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Refuses."""
        raise RegistryError(_REFUSED)
        yield

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Refuses."""
        raise RegistryError(_REFUSED)
        yield

    def _create(self, *, poolclass: type[Pool] | None = None, foreign_keys: bool = True) -> Engine:
        if self.path is not None:
            file = f"file:{quote(str(self.path))}"
            self._url = URL.create("sqlite", database=file, query={"mode": "ro", "uri": "true"})
        engine = super()._create(poolclass=poolclass, foreign_keys=foreign_keys)
        statement = "PRAGMA query_only=ON" if self.path else "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"

        def only_read(connection: Any, record: Any) -> None:
            with connection.cursor() if self.path is None else _closing(connection) as cursor:
                cursor.execute(statement)
            if self.path is None:
                connection.commit()

        event.listen(engine, "connect", only_read)
        return engine


@contextmanager
def _closing(connection: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    try:
        yield cursor
    finally:
        cursor.close()


@dataclass(frozen=True)
class Publication:
    """That a version was published: where, as which commit, under which tag."""

    repo: str
    commit: str
    tag: str | None


class Reader(Finding):
    """The reading half of a registry, on a database that cannot be written."""

    @classmethod
    def open(cls, url: str | Path | None = None, *, blobs: str | Path | None = None) -> Self:
        """Opens a registry that is there and up to date.

        Args:
            url: A path, `sqlite:///FILE`, `postgresql://USER:PASSWORD@HOST/DATABASE`, or None for `registry.db` in
                `$CONTRANS_HOME`.
            blobs: Folder or fsspec URL of the blobs; by default as for `Registry.open`.

        Raises:
            RegistryError: If there is none, or its tables are of an older version.
        """
        database = ReadOnlyDatabase(url)
        schema = None if database.is_missing() else schema_of(database)
        if schema is None:
            raise RegistryError(
                f"There is no registry at {database.shown}; `contrans run quickstart` makes one, "
                "--registry names another."
            )
        if schema != SCHEMA:
            raise RegistryError(
                f"The registry {database.shown} has tables of an older version; type `contrans registry upgrade` first."
            )
        place = blobs or (os.environ.get("CONTRANS_BLOBS") if database.path is None else database.path.parent / "blobs")
        if not place:
            raise RegistryError(
                "A registry on PostgreSQL keeps its blobs elsewhere; set CONTRANS_BLOBS to the folder or URL."
            )
        return cls(database, BlobStore(place))

    @property
    def shown(self) -> str:
        """The place of the registry as people may see it, without a password."""
        return self._database.shown

    def session(self) -> AbstractContextManager[Session]:
        """A session that reads; take no second one inside it, since connections are few."""
        return self._database.reading()

    def by_id(self, ids: Iterable[int]) -> dict[int, Version]:
        """Versions by their key in this database."""
        found: dict[int, Version] = {}
        with self.session() as session:
            for batch in in_batches(dict.fromkeys(ids)):
                rows = session.scalars(versions().where(VersionRow.id.in_(batch)))
                found |= {row.id: to_version(row) for row in rows}
        return found

    def publications(self, version: Version) -> list[Publication]:
        """Where a version was published, the latest first."""
        query = select(PublicationRow).where(PublicationRow.version_id == version.id).order_by(PublicationRow.id.desc())
        with self.session() as session:
            return [Publication(row.repo, row.commit, row.tag) for row in session.scalars(query)]

    def inputs(self, version: Version, *, limit: int = 100) -> list[tuple[str, Version]]:
        """What a version was made from, as (role, version), by role."""
        query = select(EdgeRow.role, EdgeRow.parent_id).where(EdgeRow.child_id == version.id).order_by(EdgeRow.role)
        return self._linked(query.limit(limit))

    def used_by(self, version: Version, *, limit: int = 20) -> list[tuple[str, Version]]:
        """The latest that was made from a version, as (role, version)."""
        query = select(EdgeRow.role, EdgeRow.child_id).where(EdgeRow.parent_id == version.id)
        return self._linked(query.order_by(EdgeRow.child_id.desc()).limit(limit))

    def _linked(self, query: Any) -> list[tuple[str, Version]]:
        with self.session() as session:
            rows: list[tuple[Any, ...]] = [tuple(row) for row in session.execute(query)]
        known = self.by_id(other for _, other in rows)
        return [(role, known[other]) for role, other in rows]
