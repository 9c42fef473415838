"""How versions come into being: how their numbers are drawn, and the rows that they consist of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table, inspect, select, tuple_
from sqlalchemy import insert as insert_rows
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from contrans.errors import RegistryError
from registry.base import Base
from registry.drafts import Draft
from registry.lookup import in_batches, to_version, versions
from registry.names import KINDS, listed, plain_text
from registry.records import Version
from registry.schema import (
    AboutRow,
    BlobRow,
    ConceptRow,
    EdgeRow,
    FileRow,
    MapRow,
    ModelRow,
    NameRow,
    ResultRow,
    TextSetRow,
    TransplantRow,
    ValidationRow,
    VectorRow,
    VersionRow,
    WordRow,
)
from registry.words import words_of

ROWS: dict[str, type[VersionRow]] = {
    "model": ModelRow,
    "text_set": TextSetRow,
    "vector": VectorRow,
    "map": MapRow,
    "transplant": TransplantRow,
    "validation": ValidationRow,
}
_COMMON = {column.key for column in inspect(VersionRow).column_attrs}


def insert_all(session: Session, drafts: Sequence[Draft]) -> list[Version]:
    """Writes the rows of drafts, or finds the versions with the same content.

    Args:
        session: One that writes.
        drafts: Their blobs are in the store already; inputs may be other drafts among them.

    Returns:
        A version for each draft, in the same order.

    Raises:
        RegistryError: If an input is not there or a manifest lacks what its kind needs.
    """
    # PostgreSQL: writers of one name wait here for each other, so that numbers have no gaps and equal content is
    # found. All take names, then concepts, then blobs, each sorted, and so cannot block each other. On SQLite the
    # session is the only writer anyway.
    names = _locked_names(session, sorted({(new.kind, new.name) for new in drafts}))
    by_digest = {new.digest: new for new in drafts}
    found = {row.digest: to_version(row) for row in _of_digests(session, by_digest)}
    fresh = {key: new for key, new in by_digest.items() if key not in found}
    if fresh:
        parents = _parents(session, fresh)
        made = _insert_versions(session, fresh, names)
        _insert_parts(session, fresh, made, {**parents, **made})
        found |= made
    return [found[new.digest] for new in drafts]


def insert_missing(session: Session, row: type[Base], **values: Any) -> None:
    """Inserts a row unless one with its key exists, also while another writer inserts it."""
    insert_all_missing(session, row, [values])


def insert_all_missing(session: Session, row: type[Base], values: Sequence[Mapping[str, Any]]) -> None:
    """Inserts those rows whose key is not there yet, also while another writer inserts them."""
    table = row.__table__
    assert isinstance(table, Table)
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    if values:
        session.execute(dialect.insert(table).on_conflict_do_nothing(), list(values))


def _locked_names(session: Session, keys: list[tuple[str, str]]) -> dict[tuple[str, str], NameRow]:
    insert_all_missing(session, NameRow, [{"kind": kind, "name": name, "last": 0} for kind, name in keys])
    rows: list[NameRow] = []
    for batch in in_batches(keys):
        query = select(NameRow).where(tuple_(NameRow.kind, NameRow.name).in_(batch))
        rows += session.scalars(query.order_by(NameRow.kind, NameRow.name).with_for_update())
    return {(row.kind, row.name): row for row in rows}


def _of_digests(session: Session, digests: Iterable[str]) -> Iterator[VersionRow]:
    for batch in in_batches(digests):
        yield from session.scalars(versions().where(VersionRow.digest.in_(batch)))


def _parents(session: Session, fresh: Mapping[str, Draft]) -> dict[str, Version]:
    """The inputs, by digest, that are not drafts themselves."""
    wanted = sorted({parent for new in fresh.values() for parent in new.inputs.values()} - fresh.keys())
    found = {row.digest: to_version(row) for row in _of_digests(session, wanted)}
    for new in fresh.values():
        unknown = [role for role, parent in new.inputs.items() if parent not in found and parent not in fresh]
        if unknown:
            raise RegistryError(
                f"The inputs {listed(unknown)} of {new.kind}:{new.name} are not in this registry; "
                "register them here first."
            )
    return found


def _insert_versions(
    session: Session, fresh: Mapping[str, Draft], names: Mapping[tuple[str, str], NameRow]
) -> dict[str, Version]:
    table, now = VersionRow.__table__, datetime.now(UTC)
    assert isinstance(table, Table)
    values: list[dict[str, Any]] = []
    for key, new in fresh.items():
        name = names[new.kind, new.name]
        name.last += 1
        numbered = {"kind": new.kind, "name": new.name, "number": name.last}
        values.append(numbered | {"digest": key, "manifest": new.manifest, "created": now})
    session.flush()
    rows = session.execute(insert_rows(table).returning(table.c.digest, table.c.id), values)
    by_digest = {row.digest: row.id for row in rows}
    return {each["digest"]: Version(id=by_digest[each["digest"]], **each) for each in values}


def _insert_parts(
    session: Session, fresh: Mapping[str, Draft], made: Mapping[str, Version], known: Mapping[str, Version]
) -> None:
    """Writes all that hangs on the rows of `version`: columns of the kinds, files, lineage, results, words."""
    columns: dict[str, dict[str, Any]] = {}
    for kind in KINDS:  # a vector goes before the transplants that take their concept from it
        for key, new in fresh.items():
            if new.kind == kind:
                parents = {role: known[parent] for role, parent in new.inputs.items()}
                columns[key] = {"id": made[key].id} | _columns(session, new, parents, columns)
    concepts = sorted({each["concept"] for each in columns.values() if "concept" in each})
    insert_all_missing(session, ConceptRow, [{"name": concept} for concept in concepts])
    blobs = sorted({blob for new in fresh.values() for blob in new.files.values()})
    insert_all_missing(session, BlobRow, [{"sha256": sha256, "size": size} for sha256, size in blobs])
    for kind in KINDS:
        _insert(session, ROWS[kind], [each for key, each in columns.items() if fresh[key].kind == kind])
    drafts = [(made[key].id, new) for key, new in fresh.items()]
    _insert(
        session,
        FileRow,
        [
            {"version_id": id_, "filename": filename, "sha256": sha256, "size": size}
            for id_, new in drafts
            for filename, (sha256, size) in new.files.items()
        ],
    )
    _insert(
        session,
        EdgeRow,
        [
            {"child_id": id_, "role": role, "parent_id": known[parent].id}
            for id_, new in drafts
            for role, parent in new.inputs.items()
        ],
    )
    _insert(
        session,
        ResultRow,
        [{"validation_id": id_, **asdict(result)} for id_, new in drafts for result in new.results],
    )
    about = [(each["concept"], each["id"]) for each in columns.values() if "concept" in each]
    about += [(result.concept, id_) for id_, new in drafts for result in new.results]
    _insert(session, AboutRow, [{"concept": concept, "version_id": id_} for concept, id_ in dict.fromkeys(about)])
    insert_words(session, [(id_, new.name, new.manifest) for id_, new in drafts])


def insert_words(session: Session, versions: Iterable[tuple[int, str, Mapping[str, Any]]]) -> None:
    """Makes versions (id, name, manifest) findable by free text."""
    values = [
        {"version_id": id_, "word": word} for id_, name, manifest in versions for word in words_of(name, manifest)
    ]
    _insert(session, WordRow, values)


def _insert(session: Session, row: type[Base], values: list[dict[str, Any]]) -> None:
    table = row.__table__
    assert isinstance(table, Table)
    if values:
        session.execute(insert_rows(table), values)


def _columns(
    session: Session, new: Draft, parents: Mapping[str, Version], columns: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Fills the columns of the kind's table from the inputs (where a role is named) and the manifest."""
    values: dict[str, Any] = {}
    for attribute in inspect(ROWS[new.kind]).column_attrs:
        column = attribute.columns[0]
        if attribute.key in _COMMON:
            continue
        if "role" in column.info:
            values[attribute.key] = _parent_id(new, column.info["role"], _target_kinds(column), parents)
            continue
        value = new.manifest.get(attribute.key)
        vector = parents.get("vector")
        if value is None and attribute.key == "concept" and vector is not None:
            value = columns.get(vector.digest, {}).get("concept") or session.scalar(
                select(VectorRow.concept).where(VectorRow.id == vector.id)
            )
        if value is None and not column.nullable:
            raise RegistryError(f"The manifest of a {new.kind} needs `{attribute.key}`; add it.")
        values[attribute.key] = _fitting(value, column, f"`{attribute.key}` in the manifest of {new.name}")
    return values


def _target_kinds(column: Any) -> Iterable[str]:
    tables = {key.column.table.name for key in column.foreign_keys}
    return [kind for kind, row in ROWS.items() if row.__tablename__ in tables]


def _parent_id(new: Draft, role: str, kinds: Iterable[str], parents: Mapping[str, Version]) -> int | None:
    parent = parents.get(role)
    if parent is not None and parent.kind not in kinds:
        raise RegistryError(
            f"The input {role!r} of a {new.kind} must be a {listed(kinds)}, "
            f"not the {parent.kind} {parent.name}@{parent.number}."
        )
    return None if parent is None else parent.id


def _fitting(value: Any, column: Any, what: str) -> Any:
    if value is None:
        return None
    wanted: type = column.type.python_type
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise RegistryError(f"{what} must be {'text' if wanted is str else 'a whole number'}, not {value!r}.")
    if wanted is int and not 0 <= value < 2**31:
        raise RegistryError(f"{what} must lie between 0 and 2³¹, not at {value}.")
    longest = getattr(column.type, "length", None)
    if wanted is str and longest and len(plain_text(value, what)) > longest:
        raise RegistryError(f"{what} is longer than {longest} characters; shorten it.")
    return value
