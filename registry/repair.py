"""Putting right what `check` found, as far as it can be, and clearing away what no version needs."""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import Session

from contrans.errors import RegistryError
from registry.blobs import BlobStore, sha256_of
from registry.database import Database
from registry.records import Collected, Problem
from registry.schema import BlobRow, FileRow, NameRow, VersionRow
from registry.verify import Dangling, dangling, problems
from registry.writing import insert_words

_EVER = timedelta(days=1)  # past the clocks of all who write
_BATCH = 200


class Source(Protocol):
    """Where lost contents may still be: another blob store, or an archive."""

    def get(self, sha256: str, size: int) -> bytes:
        """Reads and checks a content; raises `RegistryError` if it cannot."""
        ...


def repair(database: Database, blobs: BlobStore, sources: Iterable[Source], grace: timedelta) -> list[Problem]:
    """Repairs what it can; see `Registry.repair`."""
    with database.writing() as session:
        mended = [row.problem(repaired=_mended(session, row)) for row in dangling(session)]
    with database.reading() as session:
        found = [problem for problem in problems(session, blobs, grace) if problem.kind != "dangling"]
        sizes = {row.sha256: row.size for row in session.execute(select(BlobRow.sha256, BlobRow.size))}
    lost = {problem.subject: sizes[problem.subject] for problem in found if problem.kind in ("missing", "corrupt")}
    healed = _heal(blobs, lost, list(sources))
    return [
        Problem(each.kind, each.subject, each.message, each.kind in ("missing", "corrupt") and each.subject in healed)
        for each in found
    ] + mended


def collect(database: Database, blobs: BlobStore, *, grace: timedelta, dry: bool) -> Collected:
    """Clears away blobs of no version; see `Registry.gc`."""
    if grace < timedelta(0):
        raise RegistryError(f"A grace period of {grace} is not possible; give 0 or more.")
    before = datetime.now(UTC) - grace
    with database.reading() as session:
        needed = set(session.scalars(select(BlobRow.sha256)))
    strays = list(blobs.strays(needed, before))
    if dry:
        sizes = [blobs.size_of(key) for key in strays]
        return Collected(tuple(strays), sum(sizes), dry=True)
    removed: list[str] = []
    freed = 0
    for start in range(0, len(strays), _BATCH):
        batch = strays[start : start + _BATCH]
        # No writer is between its blobs and its rows while this holds the lock: one that comes after looks for its
        # blobs again before it ends (`BlobStore.ensure`), and one that came before has its rows there now.
        with database.writing() as session:
            if database.path is None:
                session.execute(text(f"LOCK TABLE {BlobRow.__tablename__}, {FileRow.__tablename__} IN EXCLUSIVE MODE"))
            keys = {sha256_of(key) for key in batch}
            meanwhile = set(session.scalars(select(BlobRow.sha256).where(BlobRow.sha256.in_(keys))))
            for key in batch:
                if sha256_of(key) not in meanwhile and (size := blobs.take_back(key, before)) is not None:
                    removed.append(key)
                    freed += size
    return Collected(tuple(removed), freed, dry=False)


def _heal(blobs: BlobStore, lost: dict[str, int], sources: list[Source]) -> set[str]:
    healed: set[str] = set()
    if not lost:
        return healed
    for data in _contents(blobs, lost, sources, healed):
        healed.add(blobs.put(data))
    return healed


def _contents(blobs: BlobStore, lost: dict[str, int], sources: list[Source], healed: set[str]) -> Iterator[bytes]:
    """Lost contents, from the given sources, or from what lies in the store under another name."""
    for source in sources:
        for sha256, size in lost.items():
            if sha256 not in healed:
                try:
                    yield source.get(sha256, size)
                except RegistryError:
                    continue
    if lost.keys() <= healed:
        return
    sizes = set(lost.values())
    for key in list(blobs.strays(set(), datetime.now(UTC) + _EVER)):
        if blobs.size_of(key) in sizes:
            data = blobs.peek(key)
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 in lost and sha256 not in healed and sha256 != sha256_of(key):
                yield data


def _mended(session: Session, row: Dangling) -> bool:
    """Takes away or completes a row, where that loses nothing; tells whether it did."""
    if row.remedy == "remove":
        session.execute(delete(row.table).where(*(row.table.c[column] == value for column, value in row.key.items())))
    elif row.remedy == "index":
        version = session.get_one(VersionRow, row.key["id"])
        insert_words(session, [(version.id, version.name, version.manifest)])
    elif row.remedy == "count":
        highest = session.scalars(select(func.max(VersionRow.number)).filter_by(**row.key)).one()
        session.execute(update(NameRow).filter_by(**row.key).values(last=highest))
    return bool(row.remedy)
