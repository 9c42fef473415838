"""Whether the registry is whole: every blob there and intact, every version as it was registered."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from contrans.errors import RegistryError
from contrans.hashing import digest
from registry.blobs import BlobStore
from registry.names import plain_json
from registry.records import Problem, Result
from registry.schema import BlobRow, EdgeRow, FileRow, ResultRow, VersionRow
from registry.writing import Draft

GRACE = timedelta(hours=1)
_BATCH = 500


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
    for key in blobs.strays(needed, started - grace):
        message = f"{key} in the blob store {blobs.url} belongs to no version; it only takes up space."
        yield Problem("orphaned", key, message)


def content_digest(session: Session) -> str:
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
