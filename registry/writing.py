"""How a version comes into being: what is checked, what its digest covers, how its number is drawn."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Table, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, selectinload

from contrans.errors import RegistryError
from contrans.hashing import canonical_json, digest
from registry.base import Base
from registry.names import check_kind, check_name, listed, plain_json, plain_text
from registry.records import Result, Version
from registry.schema import (
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
)

ROWS: dict[str, type[VersionRow]] = {
    "model": ModelRow,
    "text_set": TextSetRow,
    "vector": VectorRow,
    "map": MapRow,
    "transplant": TransplantRow,
    "validation": ValidationRow,
}
_COMMON = {column.key for column in inspect(VersionRow).column_attrs}


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A version that is checked but not registered: `files` as (SHA-256, size), `inputs` as digests."""

    kind: str
    name: str
    manifest: dict[str, Any]
    files: dict[str, tuple[str, int]]
    inputs: dict[str, str]
    results: tuple[Result, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over the content, which makes two versions the same; `results` in any order."""
        return digest(
            {
                "kind": self.kind,
                "name": self.name,
                "manifest": self.manifest,
                "files": {filename: sha256 for filename, (sha256, _) in self.files.items()},
                "inputs": self.inputs,
                "results": sorted((asdict(result) for result in self.results), key=canonical_json),
            }
        )


def draft(
    kind: str,
    name: str,
    *,
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    inputs: Mapping[str, Version],
    results: Sequence[Result],
) -> Draft:
    """Checks everything that can be checked without the database.

    Raises:
        RegistryError: If a name, role, manifest, file or result cannot be registered.
    """
    check_kind(kind)
    if results and kind != "validation":
        raise RegistryError(f"A {kind} has no results; register them with a validation.")
    for filename, data in files.items():
        if not isinstance(data, bytes):
            raise RegistryError(f"The file {filename!r} is a {type(data).__name__}; give its content as bytes.")
    return Draft(
        kind=kind,
        name=check_name(name),
        manifest=plain_json(manifest, "manifest"),
        files={
            check_name(filename, "file name"): (hashlib.sha256(data).hexdigest(), len(data))
            for filename, data in files.items()
        },
        inputs={check_name(role, "role"): parent.digest for role, parent in inputs.items()},
        results=tuple(results),
    )


def insert(session: Session, new: Draft) -> VersionRow:
    """Writes a draft's rows, or finds the version with the same content.

    Args:
        session: One that writes.
        new: The draft; its blobs are in the store already.

    Returns:
        The version's row.
    """
    insert_missing(session, NameRow, kind=new.kind, name=new.name, last=0)
    # PostgreSQL: writers of one name wait here for each other, so that numbers have no gaps and
    # equal content is found. On SQLite the session is the only writer anyway.
    name = session.scalars(
        select(NameRow).where(NameRow.kind == new.kind, NameRow.name == new.name).with_for_update()
    ).one()
    found = session.scalars(
        select(VersionRow).where(VersionRow.digest == new.digest).options(selectinload(VersionRow.aliases))
    ).one_or_none()
    if found is not None:
        return found
    parents = _parents(session, new)
    columns = _columns(session, new, parents)
    if "concept" in columns:
        insert_missing(session, ConceptRow, name=columns["concept"])
    for sha256, size in sorted(set(new.files.values())):  # in one order, so that writers cannot block each other
        insert_missing(session, BlobRow, sha256=sha256, size=size)
    name.last += 1
    row = ROWS[new.kind](
        name=new.name,
        number=name.last,
        digest=new.digest,
        manifest=new.manifest,
        created=datetime.now(UTC),
        **columns,
    )
    session.add(row)
    session.flush()
    session.add_all(
        FileRow(version_id=row.id, filename=filename, sha256=sha256, size=size)
        for filename, (sha256, size) in new.files.items()
    )
    session.add_all(EdgeRow(child_id=row.id, role=role, parent_id=parent.id) for role, parent in parents.items())
    session.add_all(ResultRow(validation_id=row.id, **asdict(result)) for result in new.results)
    session.flush()
    return row


def insert_missing(session: Session, row: type[Base], **values: Any) -> None:
    """Inserts a row unless one with its key exists, also while another writer inserts it."""
    table = row.__table__
    assert isinstance(table, Table)
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    session.execute(dialect.insert(table).values(**values).on_conflict_do_nothing())


def _parents(session: Session, new: Draft) -> dict[str, VersionRow]:
    rows = {
        row.digest: row for row in session.scalars(select(VersionRow).where(VersionRow.digest.in_(new.inputs.values())))
    }
    unknown = [role for role, found in new.inputs.items() if found not in rows]
    if unknown:
        raise RegistryError(
            f"The inputs {listed(unknown)} of {new.kind}:{new.name} are not in this registry; register them here first."
        )
    return {role: rows[found] for role, found in new.inputs.items()}


def _columns(session: Session, new: Draft, parents: Mapping[str, VersionRow]) -> dict[str, Any]:
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
        if value is None and attribute.key == "concept" and "vector" in parents:
            value = session.scalar(select(VectorRow.concept).where(VectorRow.id == parents["vector"].id))
        if value is None and not column.nullable:
            raise RegistryError(f"The manifest of a {new.kind} needs `{attribute.key}`; add it.")
        values[attribute.key] = _fitting(value, column, f"`{attribute.key}` in the manifest of {new.name}")
    return values


def _target_kinds(column: Any) -> Iterable[str]:
    tables = {key.column.table.name for key in column.foreign_keys}
    return [kind for kind, row in ROWS.items() if row.__tablename__ in tables]


def _parent_id(new: Draft, role: str, kinds: Iterable[str], parents: Mapping[str, VersionRow]) -> int | None:
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
