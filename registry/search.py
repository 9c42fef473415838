"""Finding versions: filters, thresholds on metrics, tags and free text, the latest registered first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from contrans.errors import RegistryError
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
_VALIDATION = ValidationRow.__table__.c


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
    found = versions().where(*_conditions(query)).order_by(VersionRow.id.desc()).limit(query.limit)
    if query.newest:
        found = found.join(
            NameRow,
            (NameRow.kind == VersionRow.kind) & (NameRow.name == VersionRow.name) & (NameRow.last == VersionRow.number),
        )
    return [to_version(row) for row in session.scalars(found)]


def _conditions(query: Query) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if query.kind is not None:
        found.append(VersionRow.kind == query.kind)
    if query.name is not None:
        found.append(VersionRow.name == query.name)
    if query.before is not None:
        found.append(VersionRow.id < query.before)
    if query.concept is not None:
        found.append(VersionRow.id.in_(select(_ABOUT.version_id).where(_ABOUT.concept == query.concept)))
    if query.family is not None:
        concepts = select(ConceptRow.name).where(ConceptRow.family == query.family)
        models = select(_MODEL.id).where(_MODEL.family == query.family)
        found.append(_any_of([select(_ABOUT.version_id).where(_ABOUT.concept.in_(concepts)), *_with(models)]))
    if query.estimator is not None:
        found.append(_any_of([select(c.id).where(c.estimator == query.estimator) for c in (_VECTOR, _MAP)]))
    if query.model is not None:
        found.append(_any_of(_with(_models(query.model))))
    if query.alias is not None:
        found.append(VersionRow.id.in_(select(AliasRow.version_id).where(AliasRow.alias == query.alias)))
    if query.where is not None:
        found.append(_measured(parse_gate(query.where)))
    found += [VersionRow.id.in_(select(TagRow.version_id).where(TagRow.tag == tag)) for tag in query.tags]
    return found + _with_words(query.text)


def _any_of(queries: Sequence[Select[Any]]) -> ColumnElement[bool]:
    # One list of ids, which is walked from its end until the page is full; with OR all would be fetched and sorted.
    return VersionRow.id.in_(union_all(*queries))


def _models(model: str) -> Select[Any]:
    named = aliased(VersionRow, flat=True)
    by_reference = select(_MODEL.id).where(_MODEL.reference == model)
    return select(named.id).where(named.kind == "model", or_(named.name == model, named.id.in_(by_reference)))


def _with(models: Select[Any]) -> list[Select[Any]]:
    return [models, select(_EDGE.child_id).where(_EDGE.parent_id.in_(models))]


def _measured(gate: Gate) -> ColumnElement[bool]:
    """Validations with such numbers, and the transplants that they judge."""
    if not isinstance(gate, Comparison):
        return (and_ if gate.word == "and" else or_)(*(_measured(part) for part in gate.parts))
    number = _RESULT[gate.field]
    rows = select(_RESULT.validation_id).where(
        _RESULT.metric == gate.metric,
        OPERATORS[gate.operator](number, gate.number),  # type: ignore[arg-type]  a column compares like a number
        _RESULT.arm == gate.arm,
        _RESULT.split.not_in(CHOSEN_ON),
    )
    fitting = rows.cte()
    judged = select(_VALIDATION.transplant_id).join(fitting, fitting.c.validation_id == _VALIDATION.id)
    return _any_of([select(fitting.c.validation_id), judged.where(_VALIDATION.transplant_id.is_not(None))])


def _with_words(text: str | None) -> list[ColumnElement[bool]]:
    """Versions with words, or tags, that begin like each word of a text."""
    if text is None:
        return []
    words = split_words(text)
    if not words:
        raise RegistryError(f"There is no word in {text!r} to look for; give letters or digits.")
    return [
        _any_of(
            [
                select(WordRow.version_id).where(WordRow.word >= word, WordRow.word < word + chr(0x10FFFF)),
                select(TagRow.version_id).where(TagRow.tag.startswith(word, autoescape=True)),
            ]
        )
        for word in words
    ]
