"""Finding versions: filters, thresholds on metrics, tags and free text, the latest registered first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from contrans.errors import RegistryError
from registry.criteria import Criterion, indexed, narrowing
from registry.gates import CHOSEN_ON, OPERATORS, Comparison, Gate, parse_gate
from registry.lookup import to_version, versions
from registry.names import check_kind, plain_text
from registry.records import Version
from registry.schema import (
    AboutRow,
    AliasRow,
    ConceptRow,
    EdgeRow,
    MapRow,
    ModelRow,
    NameRow,
    ResultRow,
    TagRow,
    ValidationRow,
    VectorRow,
    VersionRow,
    WordRow,
)
from registry.words import split_words

_EDGE, _RESULT, _MODEL = EdgeRow.__table__.c, ResultRow.__table__.c, ModelRow.__table__.c
_ABOUT, _VECTOR, _MAP = AboutRow.__table__.c, VectorRow.__table__.c, MapRow.__table__.c
_VALIDATION_TABLE = ValidationRow.__table__
_VALIDATION, _ALIAS = _VALIDATION_TABLE.c, AliasRow.__table__.c
_TAG, _WORD = TagRow.__table__.c, WordRow.__table__.c


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is looked for; see `Registry.search` and `Registry.list` for the fields."""

    text: str | None = None
    kind: str | None = None
    name: str | None = None
    concept: str | None = None
    family: str | None = None
    model: str | None = None
    estimator: str | None = None
    where: str | None = None
    tags: Sequence[str] = ()
    alias: str | None = None
    newest: bool = False
    before: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        texts = (self.text, self.name, self.concept, self.family, self.model, self.estimator, self.alias, *self.tags)
        for text in filter(None, texts):
            plain_text(text, f"The filter {text!r}")
        if self.kind is not None:
            check_kind(self.kind)
        if self.limit is not None and self.limit < 0:
            raise RegistryError(f"A limit of {self.limit} is not possible; give 0 or more, or none for all.")


def find(session: Session, query: Query) -> list[Version]:
    """Finds versions, the latest registered first."""
    conditions = [*_plain(query), *narrowing(session, _criteria(query))]
    found = versions().where(*conditions).order_by(VersionRow.id.desc()).limit(query.limit)
    return [to_version(row) for row in session.scalars(found)]


def _plain(query: Query) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.kind is not None:
        found.append(VersionRow.kind == query.kind)
    if query.name is not None:
        found.append(VersionRow.name == query.name)
    if query.before is not None:
        found.append(VersionRow.id < query.before)
    return found


def _criteria(query: Query) -> list[Criterion]:
    found: list[Criterion] = []
    if query.alias is not None:
        found.append(indexed(select(_ALIAS.version_id).where(_ALIAS.alias == query.alias)))
    found += [indexed(select(_TAG.version_id).where(_TAG.tag == tag)) for tag in query.tags]
    if query.concept is not None:
        found.append(indexed(select(_ABOUT.version_id).where(_ABOUT.concept == query.concept)))
    if query.model is not None:
        found.append(indexed(*_with(_models(query.model))))
    if query.estimator is not None:
        found.append(indexed(*(select(c.id).where(c.estimator == query.estimator) for c in (_VECTOR, _MAP))))
    if query.family is not None:
        concepts = select(ConceptRow.name).where(ConceptRow.family == query.family)
        models = select(_MODEL.id).where(_MODEL.family == query.family)
        found.append(indexed(select(_ABOUT.version_id).where(_ABOUT.concept.in_(concepts)), *_with(models)))
    if query.where is not None:
        found += _measured(parse_gate(query.where))
    found += _with_words(query.text)
    return [*found, _newest()] if query.newest else found


def _models(model: str) -> Select[Any]:
    named = aliased(VersionRow, flat=True)
    by_reference = select(_MODEL.id).where(_MODEL.reference == model)
    return select(named.id).where(named.kind == "model", or_(named.name == model, named.id.in_(by_reference)))


def _with(models: Select[Any]) -> list[Select[Any]]:
    return [models, select(_EDGE.child_id).where(_EDGE.parent_id.in_(models))]


def _newest() -> Criterion:
    """The newest version of each name."""
    named = aliased(VersionRow, flat=True)
    ids, found = (
        select(version.id).where(
            NameRow.kind == version.kind, NameRow.name == version.name, NameRow.last == version.number
        )
        for version in (named, VersionRow)
    )
    return Criterion((ids,), found.correlate(VersionRow).exists(), may_lead=False)


def _measured(gate: Gate) -> list[Criterion]:
    """Validations with such numbers, and the transplants that they judge; all of what is given must hold."""
    if isinstance(gate, Comparison):
        return [_compared(gate)]
    parts = [_measured(part) for part in gate.parts]
    if gate.word == "and":
        return [criterion for part in parts for criterion in part]
    ids = tuple(_ids_of_all(part) for part in parts)
    return [Criterion(ids, or_(*(and_(*(one.checked() for one in part)) for part in parts)))]


def _ids_of_all(criteria: Sequence[Criterion]) -> Select[Any]:
    first, *others = (union_all(*one.ids).subquery().c[0] for one in criteria)
    return select(first).where(*(first.in_(select(other)) for other in others))


def _compared(gate: Comparison) -> Criterion:
    def validations(metric: ColumnElement[str]) -> Select[Any]:
        return select(_RESULT.validation_id).where(
            metric == gate.metric,
            OPERATORS[gate.operator](_RESULT[gate.field], gate.number),  # type: ignore[arg-type]  compares like a number
            _RESULT.arm == gate.arm,
            _RESULT.split.not_in(CHOSEN_ON),
        )

    fitting = validations(_RESULT.metric)
    measured = fitting.subquery()
    judged = select(_VALIDATION.transplant_id).join(measured, measured.c.validation_id == _VALIDATION.id)
    ids = (fitting, judged.where(_VALIDATION.transplant_id.is_not(None)))
    # The metric's index gives all its rows; behind a function it is not taken, and that of the validation's id is.
    rows = validations(func.coalesce(_RESULT.metric, ""))
    own = rows.where(_RESULT.validation_id == VersionRow.id)
    others = rows.join(_VALIDATION_TABLE, _VALIDATION.id == _RESULT.validation_id)
    others = others.where(_VALIDATION.transplant_id == VersionRow.id)
    return Criterion(ids, or_(own.exists(), others.exists()))


def _with_words(text: str | None) -> list[Criterion]:
    """Versions with words, or tags, that begin like each word of a text."""
    if text is None:
        return []
    words = split_words(text)
    if not words:
        raise RegistryError(f"There is no word in {text!r} to look for; give letters or digits.")
    return [
        Criterion(
            (
                select(_WORD.version_id).where(_WORD.word >= word, _WORD.word < word + chr(0x10FFFF)),
                select(_TAG.version_id).where(_TAG.tag.startswith(word, autoescape=True)),
            ),
            None,  # the words of one version have no index of their own
        )
        for word in words
    ]
