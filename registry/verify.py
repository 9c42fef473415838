"""Whether the registry is whole: every blob there and intact, every version as it was registered."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, exists, func, select
from sqlalchemy.orm import Session, aliased

from contrans.errors import RegistryError
from contrans.hashing import digest
from registry.base import Base
from registry.blobs import BlobStore
from registry.drafts import Draft
from registry.names import plain_json
from registry.records import Problem, Result
from registry.schema import (
    AboutRow,
    AliasRow,
    BlobRow,
    EdgeRow,
    FileRow,
    NameRow,
    ResultRow,
    RunVersionRow,
    TagRow,
    VersionRow,
    WordRow,
)
from registry.words import words_of
from registry.writing import ROWS

GRACE = timedelta(hours=1)
_BATCH = 500
_EXPENDABLE = {
    row.__tablename__ for row in (AboutRow, AliasRow, RunVersionRow, TagRow, WordRow)
}  # no version consists of them


def problems(session: Session, blobs: BlobStore, grace: timedelta) -> Iterator[Problem]:
    """Finds everything wrong; see `Registry.check`."""
    started = datetime.now(UTC)
    needed: set[str] = set()
    for sha256, size in session.execute(select(BlobRow.sha256, BlobRow.size).order_by(BlobRow.sha256)):
        needed.add(sha256)
        fault = blobs.fault(sha256, size)
        if fault is not None:
            yield Problem(fault[0], sha256, fault[1])
    yield from _altered(session)
    for row in dangling(session):
        yield row.problem()
    for key in blobs.strays(needed, started - grace):
        message = f"{key} in the blob store {blobs.url} belongs to no version; it only takes up space."
        yield Problem("orphaned", key, message)


@dataclass(frozen=True)
class Dangling:
    """A row that points at nothing, or lacks what belongs to it.

    Attributes:
        table: Its table.
        key: Its primary key, by column.
        reason: What is wrong, in a clause.
        remedy: What `Registry.repair` does: "remove" the row, "index" the version or "count" the name's versions;
            "" if only a copy helps.
    """

    table: Table
    key: dict[str, Any]
    reason: str
    remedy: str = ""

    @property
    def subject(self) -> str:
        """The table and the key."""
        return f"{self.table.name} {', '.join(str(value) for value in self.key.values())}"

    def problem(self, *, repaired: bool = False) -> Problem:
        """What `Registry.check` says of it."""
        advice = "repair takes care of it" if self.remedy else "restore a copy"
        return Problem("dangling", self.subject, f"The row {self.subject} {self.reason}; {advice}.", repaired)


def dangling(session: Session) -> Iterator[Dangling]:
    """Finds rows whose neighbours are gone, which a database that was changed by hand or is damaged can have."""
    for table in Base.metadata.sorted_tables:
        remedy = "remove" if table.name in _EXPENDABLE else ""
        for constraint in sorted(table.foreign_key_constraints, key=lambda each: str(each.name)):
            target = constraint.referred_table.alias()
            pairs = [(table.c[each.parent.name], target.c[each.column.name]) for each in constraint.elements]
            lost = select(*table.primary_key.columns).where(*(own.is_not(None) for own, _ in pairs))
            lost = lost.where(~exists().where(*(own == other for own, other in pairs)))
            for row in session.execute(lost):
                yield _row(table, row, f"points at a {constraint.referred_table.name} that is not there", remedy)
    for kind, own in ROWS.items():
        lost = select(VersionRow.id).where(VersionRow.kind == kind, VersionRow.id.not_in(select(own.__table__.c.id)))
        for row in session.execute(lost):
            yield _row(VersionRow.__table__, row, f"has no row in {own.__tablename__}")
    unindexed = select(VersionRow.id, VersionRow.name, VersionRow.manifest)
    for id_, name, manifest in session.execute(unindexed.where(VersionRow.id.not_in(select(WordRow.version_id)))):
        if words_of(name, manifest):
            yield _row(VersionRow.__table__, (id_,), "is not found by its words", "index")
    yield from _misnumbered(session)


def _misnumbered(session: Session) -> Iterator[Dangling]:
    query = (
        select(NameRow.kind, NameRow.name, NameRow.last, func.count(VersionRow.id), func.max(VersionRow.number))
        .outerjoin(VersionRow, (VersionRow.kind == NameRow.kind) & (VersionRow.name == NameRow.name))
        .group_by(NameRow.kind, NameRow.name, NameRow.last)
    )
    for kind, name, last, count, highest in session.execute(query):
        if not count == (highest or 0) == last:
            has = f"has {count} versions up to number {highest or 0}, but counts {last}"
            # A count that is too high stays: what was lost may be restored, and its number must not be given again.
            yield _row(NameRow.__table__, (kind, name), has, "count" if (highest or 0) > last else "")


def _row(table: Any, key: Iterable[Any], reason: str, remedy: str = "") -> Dangling:
    return Dangling(table, dict(zip(table.primary_key.columns.keys(), key, strict=True)), reason, remedy)


def content_digest(session: Session | Connection) -> str:
    """SHA-256, in hex, over all versions; see `Registry.content_digest`."""
    query = select(VersionRow.kind, VersionRow.name, VersionRow.number, VersionRow.digest)
    # Sorted here: databases sort text by their own locale.
    return digest(sorted(list(row) for row in session.execute(query)))


def results_of(rows: Iterator[ResultRow]) -> list[Result]:
    """Turns rows into results."""
    return [
        Result(
            concept=row.concept,
            protocol=row.protocol,
            split=row.split,
            arm=row.arm,
            metric=row.metric,
            dose=row.dose,
            value=row.value,
            low=row.low,
            high=row.high,
            n=row.n,
        )
        for row in rows
    ]


def _altered(session: Session) -> Iterator[Problem]:
    last = 0
    while True:
        page = select(VersionRow).where(VersionRow.id > last).order_by(VersionRow.id).limit(_BATCH)
        rows = list(session.scalars(page))
        if not rows:
            return
        for row, intact in _compared(session, rows):
            if not intact:
                name = f"{row.kind}:{row.name}@{row.number}"
                message = f"The rows of {name} were changed after it was registered; restore a copy."
                yield Problem("altered", name, message)
        last = rows[-1].id
        session.expunge_all()  # else all manifests of the registry gather in memory


def _compared(session: Session, rows: list[VersionRow]) -> Iterator[tuple[VersionRow, bool]]:
    first, last = rows[0].id, rows[-1].id
    files: dict[int, dict[str, tuple[str, int]]] = {}
    for file in session.scalars(select(FileRow).where(FileRow.version_id.between(first, last))):
        files.setdefault(file.version_id, {})[file.filename] = (file.sha256, file.size)
    inputs: dict[int, dict[str, str]] = {}
    parent = aliased(VersionRow, flat=True)
    edges = select(EdgeRow.child_id, EdgeRow.role, parent.digest).join(parent, parent.id == EdgeRow.parent_id)
    for child, role, parent_digest in session.execute(edges.where(EdgeRow.child_id.between(first, last))):
        inputs.setdefault(child, {})[role] = parent_digest
    results: dict[int, list[ResultRow]] = {}
    for result in session.scalars(select(ResultRow).where(ResultRow.validation_id.between(first, last))):
        results.setdefault(result.validation_id, []).append(result)
    for row in rows:
        try:
            found = Draft(
                kind=row.kind,
                name=row.name,
                manifest=plain_json(row.manifest, "manifest"),
                files=files.get(row.id, {}),
                inputs=inputs.get(row.id, {}),
                results=tuple(results_of(iter(results.get(row.id, [])))),
            ).digest
        except RegistryError:  # such content could not have been registered
            found = ""
        yield row, found == row.digest
