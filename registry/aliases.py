"""Moving aliases, with their history, and the gates that protect some of them."""

from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from contrans.errors import RegistryError
from registry.gates import parse_gate, shortfalls
from registry.lookup import to_version, versions
from registry.names import check_alias, listed
from registry.records import Result, Version
from registry.schema import AliasHistoryRow, AliasRow, EdgeRow, NameRow, ProtectionRow, ResultRow, VersionRow
from registry.verify import results_of


def move(session: Session, version: Version, alias: str, *, force: bool) -> None:
    """Makes an alias point at a version; see `Registry.set_alias`."""
    key = {"kind": version.kind, "name": version.name}
    session.scalars(select(NameRow).filter_by(**key).with_for_update()).one()
    row = session.get(AliasRow, {**key, "alias": alias})
    if row is not None and row.version_id == version.id:
        return
    refused = _refusal(session, version, alias)
    if refused is not None and not force:
        raise RegistryError(refused)
    moved = {"alias": alias, "version_id": version.id, "moved_at": datetime.now(UTC)}
    session.merge(AliasRow(**key, **moved))
    session.add(AliasHistoryRow(**key, **moved, forced=refused is not None))


def protect(session: Session, alias: str, gate: str | None) -> None:
    """Protects an alias by a gate, or with None no more; see `Registry.protect`."""
    check_alias(alias)
    row = session.get(ProtectionRow, alias)
    if gate is None:
        if row is None:
            raise RegistryError(f"The alias {alias!r} is not protected; there is nothing to lift.")
        session.delete(row)
        return
    text = str(parse_gate(gate))
    session.merge(ProtectionRow(alias=alias, gate=text, created=datetime.now(UTC)))


def judgements(session: Session, version: Version) -> Iterator[Version]:
    """The validations that judge a version, the newest of each name.

    A transplant is judged by the validations made with it as the input `transplant`; a vector or map by
    those of the transplants made with it as `vector` or `map`; a validation by itself. Other roles do not count:
    a control map is an input of a validation too.
    """
    if version.kind == "validation":
        yield version
        return
    judged = select(VersionRow.id).where(VersionRow.id == version.id)
    if version.kind in ("vector", "map"):
        judged = select(EdgeRow.child_id).where(EdgeRow.parent_id == version.id, EdgeRow.role == version.kind)
    edge = aliased(EdgeRow)
    query = (
        versions()
        .join(edge, edge.child_id == VersionRow.id)
        .where(edge.role == "transplant", edge.parent_id.in_(judged), VersionRow.kind == "validation")
        .order_by(VersionRow.number)
    )
    yield from {row.name: to_version(row) for row in session.scalars(query)}.values()


def measured(session: Session, validation: Version) -> list[Result]:
    """The numbers of a validation, in the order in which they were registered."""
    query = select(ResultRow).where(ResultRow.validation_id == validation.id).order_by(ResultRow.id)
    return results_of(iter(session.scalars(query)))


def _refusal(session: Session, version: Version, alias: str) -> str | None:
    """Why a version may not have an alias; None if it may."""
    protection = session.get(ProtectionRow, alias)
    if protection is None:
        return None
    judged = list(judgements(session, version))
    if not judged:
        return (
            f"{version} may not become {alias!r}: it has no validation, and the alias asks for {protection.gate}; "
            "validate it first, or force it."
        )
    rows = [row for validation in judged for row in measured(session, validation)]
    missed = shortfalls(parse_gate(protection.gate), rows)
    if not missed:
        return None
    return (
        f"{version} may not become {alias!r}: {listed(missed, most=3)} in {listed(map(str, judged), most=2)}; "
        "validate a better version, or force it."
    )
