"""What a registry answers about a version, an alias, a concept or a run."""

import builtins
from types import TracebackType
from typing import Self

from sqlalchemy import select

from contrans.errors import RegistryError
from registry.aliases import judgements, measured
from registry.blobs import BlobStore
from registry.database import Database
from registry.lookup import resolve, to_version, versions
from registry.records import AliasMove, Result, Run, Version
from registry.runs import to_run
from registry.schema import AliasHistoryRow, ConceptRow, FileRow, ProtectionRow, RunRow, RunVersionRow, VersionRow
from registry.verify import content_digest


class Reading:
    """The part of `Registry` that reads; wherever a version is asked for, a reference (see `get`) will do."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def get(self, reference: str, kind: str | None = None) -> Version:
        """Finds a version.

        Args:
            reference: "NAME" (the newest version), "NAME@number" or "NAME@alias", with an optional
                "kind:" before it. A name's first segment is enough where exactly one transplant's
                name begins with it: "anger" for "anger/gemma-3-270m".
            kind: The kind to look among.

        Raises:
            RegistryError: If nothing or more than one thing fits; the message names candidates.
        """
        with self._database.reading() as session:
            return resolve(session, reference, kind)

    def files(self, version: Version | str) -> dict[str, str]:
        """SHA-256 of a version's files, by file name."""
        found = self._version(version)
        with self._database.reading() as session:
            rows = session.scalars(select(FileRow).where(FileRow.version_id == found.id).order_by(FileRow.filename))
            return {row.filename: row.sha256 for row in rows}

    def read(self, version: Version | str, filename: str) -> bytes:
        """Reads a file of a version and checks its hash.

        Raises:
            RegistryError: If there is no such file, or its blob is missing or damaged.
        """
        found = self._version(version)
        with self._database.reading() as session:
            row = session.get(FileRow, (found.id, filename))
        if row is None:
            has = ", ".join(self.files(found)) or "none"
            raise RegistryError(f"{found} has no file {filename!r}; it has {has}.")
        return self._blobs.get(row.sha256, row.size)

    def read_all(self, version: Version | str) -> dict[str, bytes]:
        """Reads all files of a version, by file name, and checks their hashes.

        Raises:
            RegistryError: If a blob is missing or damaged.
        """
        found = self._version(version)
        return {name: self.read(found, name) for name in self.files(found)}

    def results(self, version: Version | str) -> builtins.list[Result]:
        """The numbers of a validation, in the order in which they were registered."""
        found = self._version(version)
        with self._database.reading() as session:
            return measured(session, found)

    def validations(self, version: Version | str) -> builtins.list[Version]:
        """The validations that judge a version, the newest of each name.

        A transplant is judged by the validations made with it; a vector or map by those of the transplants made
        with it; a validation by itself.
        """
        found = self._version(version)
        with self._database.reading() as session:
            return list(judgements(session, found))

    def aliases(self, version: Version | str) -> tuple[str, ...]:
        """The aliases that point at a version now."""
        return self._version(version).aliases

    def alias_history(self, version: Version | str, alias: str) -> builtins.list[AliasMove]:
        """All moves of an alias among the versions of one name, the oldest first."""
        found = self._version(version)
        with self._database.reading() as session:
            query = select(AliasHistoryRow).filter_by(kind=found.kind, name=found.name, alias=alias)
            moves = list(session.scalars(query.order_by(AliasHistoryRow.id)))
            rows = session.scalars(versions().where(VersionRow.id.in_({move.version_id for move in moves})))
            by_id = {row.id: to_version(row) for row in rows}
            return [AliasMove(move.alias, by_id[move.version_id], move.moved_at, move.forced) for move in moves]

    def protections(self) -> dict[str, str]:
        """The gate of each protected alias (see `Registry.protect`)."""
        with self._database.reading() as session:
            rows = session.scalars(select(ProtectionRow))
            return {row.alias: row.gate for row in sorted(rows, key=lambda row: row.alias)}

    def concepts(self) -> dict[str, tuple[str | None, str | None]]:
        """Family and description of every concept, by name."""
        with self._database.reading() as session:
            rows = session.scalars(select(ConceptRow))
            return {row.name: (row.family, row.description) for row in sorted(rows, key=lambda row: row.name)}

    def runs(self, *, version: Version | str | None = None, limit: int | None = None) -> builtins.list[Run]:
        """Runs, the latest first; with `version` those linked to it."""
        query = select(RunRow).order_by(RunRow.started.desc(), RunRow.id)
        if version is not None:
            query = query.join(RunVersionRow).where(RunVersionRow.version_id == self._version(version).id)
        with self._database.reading() as session:
            return [to_run(row) for row in session.scalars(query.limit(limit))]

    def run_versions(self, run_id: str) -> builtins.list[Version]:
        """The versions linked to a run, in the order of registration."""
        query = versions().join(RunVersionRow).where(RunVersionRow.run_id == run_id)
        with self._database.reading() as session:
            return [to_version(row) for row in session.scalars(query.order_by(VersionRow.id))]

    def content_digest(self) -> str:
        """SHA-256, in hex, over kind, name, number and digest of all versions.

        Two registries with the same content have the same one, whatever their ids, times and runs.
        """
        with self._database.reading() as session:
            return content_digest(session)

    def close(self) -> None:
        """Closes the connections to the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Registry({self._database.shown!r}, blobs={self._blobs.url!r})"

    def _version(self, version: Version | str) -> Version:
        if isinstance(version, str):
            return self.get(version)
        # Not by id: another registry's version has another one, or has ours for something else.
        with self._database.reading() as session:
            row = session.scalars(versions().where(VersionRow.digest == version.digest)).one_or_none()
        if row is None:
            raise RegistryError(f"{version} is not in this registry; register it here first.")
        return to_version(row)
