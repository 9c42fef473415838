"""From what people type to versions: references, short forms, and hints where nothing fits."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, selectinload

from contrans.errors import RegistryError
from registry.names import check_kind, listed, plain_text
from registry.records import Version
from registry.schema import AliasRow, NameRow, VersionRow

_BATCH = 500
_NAMES_FOR_HINTS = 20_000  # more would make a typing mistake slow


def to_version(row: VersionRow) -> Version:
    """Turns a row into what the registry hands out."""
    return Version(
        id=row.id,
        kind=row.kind,
        name=row.name,
        number=row.number,
        digest=row.digest,
        created=row.created,
        manifest=row.manifest,
        aliases=tuple(alias.alias for alias in row.aliases),
    )


def versions() -> Select[VersionRow]:
    """The query for versions with their aliases."""
    return select(VersionRow).options(selectinload(VersionRow.aliases))


def in_batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Cuts into parts small enough for one statement."""
    rest = list(items)
    for start in range(0, len(rest), _BATCH):
        yield rest[start : start + _BATCH]


def resolve(session: Session, reference: str, kind: str | None = None) -> Version:
    """Finds the version that a reference means.

    Args:
        session: One that reads.
        reference: "NAME", "NAME@number" or "NAME@alias", with an optional "kind:" before it. Without
            "@" the newest version is meant. The first segment of a name is enough where only one
            transplant's name begins with it.
        kind: The kind to look among.

    Raises:
        RegistryError: If nothing or more than one thing fits; the message names candidates.
    """
    prefix, colon, rest = reference.rpartition(":")
    if colon:
        check_kind(prefix)
        if kind not in (None, prefix):
            raise RegistryError(f"{reference!r} is a {prefix}, but a {kind} is wanted; name one of those.")
        kind = prefix
    elif kind is not None:
        check_kind(kind)
    name, at, selector = plain_text(rest, "The name").partition("@")
    found = _names(session, name, kind)
    if not found:
        raise RegistryError(_unknown(session, name, kind))
    if len(found) > 1:
        candidates = listed(f"{row.kind}:{row.name}" for row in found)
        raise RegistryError(f"{reference!r} can mean {candidates}; say which.")
    return _select(session, found[0], selector if at else None)


def _names(session: Session, name: str, kind: str | None) -> list[NameRow]:
    query = select(NameRow).order_by(NameRow.kind, NameRow.name).where(NameRow.last > 0)
    exact = query.where(NameRow.name == name)
    found = list(session.scalars(exact if kind is None else exact.where(NameRow.kind == kind)))
    if found or not name or "/" in name or kind not in (None, "transplant"):
        return found
    # Not LIKE: SQLite's is blind to case, and '_' in the name would match anything.
    first = func.substr(NameRow.name, 1, len(name) + 1) == f"{name}/"
    return list(session.scalars(query.where(NameRow.kind == "transplant", first)))


def _select(session: Session, name: NameRow, selector: str | None) -> Version:
    query = versions().where(VersionRow.kind == name.kind, VersionRow.name == name.name)
    if selector is None or (selector.isascii() and selector.isdigit()):
        # Bounded, since a number of more than 64 bits is no number to a database.
        number = name.last if selector is None else min(int(selector[:19]), name.last + 1)
        row = session.scalars(query.where(VersionRow.number == number)).one_or_none()
        if row is not None:
            return to_version(row)
        has = "only version 1" if name.last == 1 else f"versions 1 to {name.last}"
        raise RegistryError(f"{name.name} has {has}, not {selector}.")
    points = select(AliasRow).where(AliasRow.kind == name.kind, AliasRow.name == name.name)
    aliases = {row.alias: row.version_id for row in session.scalars(points.order_by(AliasRow.alias))}
    if selector not in aliases:
        has = f"its aliases are {listed(aliases)}" if aliases else "it has none; give a number"
        raise RegistryError(f"{name.name} has no alias {selector!r}; {has}.")
    return to_version(session.scalars(query.where(VersionRow.id == aliases[selector])).one())


def _unknown(session: Session, name: str, kind: str | None) -> str:
    query = select(NameRow.kind, NameRow.name).where(NameRow.last > 0)
    if kind is not None:
        query = query.where(NameRow.kind == kind)
    by_word: dict[str, list[str]] = {}
    for found_kind, found in session.execute(query.order_by(NameRow.name).limit(_NAMES_FOR_HINTS)):
        # A part of the name counts too: "angr" is close to "anger" in "anger/gemma-3-270m".
        for word in {found, *found.split("/")}:
            by_word.setdefault(word, []).append(f"{found_kind}:{found}")
    what = "version" if kind is None else kind
    if not by_word:
        return f"There is no {what} named {name!r}; the registry has none yet."
    close = difflib.get_close_matches(name, by_word, n=3)
    hits = list(dict.fromkeys(hit for word in close for hit in by_word[word]))
    hint = f"did you mean {listed(hits, most=3)}?" if hits else "`contrans list` shows what there is."
    return f"There is no {what} named {name!r}; {hint}"
