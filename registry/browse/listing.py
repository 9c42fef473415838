"""The list of concepts: which transplants fit, in which order, a page at a time, each with its gains over versions."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from contrans.errors import RegistryError
from registry.browse.filtering import Filters, fitting
from registry.browse.reading import Reader
from registry.gains import Gain, gains_of, is_gain
from registry.gates import CHOSEN_ON
from registry.lookup import to_version, versions
from registry.records import Version
from registry.schema import (
    AliasRow,
    ConceptRow,
    MapRow,
    ModelRow,
    NameRow,
    ResultRow,
    TransplantRow,
    ValidationRow,
    VectorRow,
    VersionRow,
)

PAGE = 25
_FEW_NAMES = 1000
_SPARK = 20  # versions of a name that its sparkline shows

# Tables, not classes: those of a kind would each join the table of all versions.
_T, _V, _M = TransplantRow.__table__.c, VectorRow.__table__.c, MapRow.__table__.c
_J, _R, _MODEL = ValidationRow.__table__.c, ResultRow.__table__.c, ModelRow.__table__.c


@dataclass(frozen=True)
class Line:
    """One line of the list: a transplant, its models' names, and the gains of its name's versions, oldest first."""

    version: Version
    source: str
    target: str
    gains: tuple[Gain, ...]

    @property
    def gain(self) -> Gain | None:
        """The gain of this very version."""
        return next((g for g in self.gains if g.number == self.version.number), None)


@dataclass(frozen=True)
class Page:
    """A page of lines; `after` begins the next one, and is "" on the last."""

    lines: tuple[Line, ...]
    after: str


def concepts_page(registry: Reader, filters: Filters, *, size: int = PAGE) -> Page:
    """Finds a page of transplants.

    Raises:
        RegistryError: If a filter, the order or the beginning of the page cannot be understood.
    """
    by_gain = filters.sort == "gain"
    with registry.session() as session:
        query = select(VersionRow.id, VersionRow.name, VersionRow.number, *([_R.value] if by_gain else []))
        query = query.where(*fitting(filters))
        if not filters.every:
            newest = (
                (NameRow.kind == VersionRow.kind)
                & (NameRow.name == VersionRow.name)
                & (NameRow.last == VersionRow.number)
            )
            query = query.join(NameRow, newest)
        if by_gain:
            # The metric's index is walked from its end until the page is full; the newest of few names are quicker.
            few = not filters.every and are_few_names(session)
            query = query.join(_T.id.table, _T.id == VersionRow.id).join(_J.id.table, _J.transplant_id == _T.id)
            query = query.join(_R.id.table, _R.validation_id == _J.id)
            query = query.where(_R.concept == _T.concept, *is_gain(of_few=few), _best_gain())
            query = query.order_by(_R.value.desc(), VersionRow.id.desc())
        elif filters.sort == "name":
            query = query.order_by(VersionRow.name, VersionRow.number.desc())
        else:
            query = query.order_by(VersionRow.id.desc())
        if filters.after:
            query = query.where(_beyond(filters))
        found: list[tuple[Any, ...]] = [tuple(row) for row in session.execute(query.limit(size + 1))]
        rows = session.scalars(versions().where(VersionRow.id.in_([row[0] for row in found[:size]])))
        by_id = {row.id: to_version(row) for row in rows}
        lines = _lines(session, [by_id[row[0]] for row in found[:size]])
    if len(found) <= size:
        return Page(lines, "")
    last = found[size - 1]
    return Page(lines, _packed([filters.sort, last[0], last[3] if by_gain else last[1], last[2]]))


def choices(registry: Reader) -> dict[str, list[str]]:
    """What can be chosen in the filters: concepts, models, families, estimators and aliases."""
    with registry.session() as session:
        models = select(VersionRow.name).where(VersionRow.kind == "model").distinct().order_by(VersionRow.name)

        def known(*columns: Any) -> list[str]:
            return sorted({text for column in columns for text in session.scalars(select(column).distinct()) if text})

        return {
            "concept": list(session.scalars(select(ConceptRow.name).order_by(ConceptRow.name).limit(500))),
            "model": list(session.scalars(models.limit(500))),
            "family": known(ConceptRow.family, _MODEL.family),
            "estimator": known(_M.estimator, _V.estimator),
            "alias": known(AliasRow.alias),
        }


def are_few_names(session: Session) -> bool:
    """Whether transplants have so few names that the newest of each are found before their numbers."""
    names = select(NameRow.name).where(NameRow.kind == "transplant").limit(_FEW_NAMES + 1)
    return len(session.scalars(names).all()) <= _FEW_NAMES


def _best_gain() -> ColumnElement[bool]:
    """Of several validations of a transplant, only the row of the best gain, so that each version stands there once."""
    other, validation = aliased(ResultRow), ValidationRow.__table__.alias()
    better = or_(other.value > _R.value, and_(other.value == _R.value, other.id > _R.id))
    few = (func.coalesce(other.metric, "") == "gain_recovered", other.arm == "transplanted")
    return ~exists(
        select(other.id)
        .join(validation, validation.c.id == other.validation_id)
        .where(validation.c.transplant_id == _T.id, *few, other.concept == _T.concept, better)
        .where(other.split.not_in(CHOSEN_ON))
    )


def _beyond(filters: Filters) -> ColumnElement[bool]:
    sort, id_, key, number = _unpacked(filters.after)
    if sort != filters.sort:
        raise RegistryError("The page belongs to another order; begin with the first page.")
    if filters.sort == "gain":
        least = float(key)
        return and_(_R.value <= least, or_(_R.value < least, VersionRow.id < id_))
    if filters.sort == "name":
        return or_(VersionRow.name > str(key), and_(VersionRow.name == str(key), VersionRow.number < number))
    return VersionRow.id < id_


def _packed(values: Sequence[Any]) -> str:
    return urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def _unpacked(text: str) -> tuple[str, int, str | float, int]:
    try:
        sort, id_, key, number = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        key = float(key) if sort == "gain" else str(key)
        return str(sort), min(int(id_), 2**62), key, min(int(number), 2**62)
    except (ValueError, TypeError) as error:
        raise RegistryError("The page cannot be found; begin with the first page.") from error


def _lines(session: Session, found: Sequence[Version]) -> tuple[Line, ...]:
    query = (
        select(_T.id, _V.model_id, _T.target_model_id)
        .outerjoin(_V.id.table, _V.id == _T.vector_id)
        .where(_T.id.in_([version.id for version in found]))
    )
    ends = {row[0]: (row[1], row[2]) for row in session.execute(query)}
    ids = {id_ for pair in ends.values() for id_ in pair if id_ is not None}
    rows = session.execute(select(VersionRow.id, VersionRow.name).where(VersionRow.id.in_(ids)))
    names = {row[0]: row[1] for row in rows}
    gains = gains_of(session, found, back=_SPARK)
    return tuple(Line(v, names.get(ends[v.id][0], ""), names.get(ends[v.id][1], ""), gains[v.id]) for v in found)
