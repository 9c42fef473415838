"""Which transplants fit what is asked for: words, models, families, estimators, aliases, rules on their numbers."""

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, or_, select, union_all
from sqlalchemy.orm import aliased

from contrans.errors import RegistryError
from registry.gates import CHOSEN_ON, OPERATORS, Comparison, Gate, parse_gate
from registry.names import plain_text
from registry.schema import (
    AliasRow,
    ConceptRow,
    MapRow,
    ModelRow,
    ResultRow,
    TagRow,
    TransplantRow,
    ValidationRow,
    VectorRow,
    VersionRow,
    WordRow,
)
from registry.words import split_words

Sort = Literal["new", "name", "gain"]
SORTS: tuple[Sort, ...] = ("new", "name", "gain")

# Tables, not classes: those of a kind would each join the table of all versions.
_T, _V, _M = TransplantRow.__table__.c, VectorRow.__table__.c, MapRow.__table__.c
_J, _R, _MODEL = ValidationRow.__table__.c, ResultRow.__table__.c, ModelRow.__table__.c


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What is asked for; empty fields ask for nothing.

    Attributes:
        text: Words; each must begin a word of the name, of a text in the manifest or of a tag.
        concept: Concept.
        source: Source model, by name or reference.
        target: Target model, by name or reference.
        family: Family of the concept or of the target model.
        estimator: Of the map or of the vector.
        alias: Alias that points at the version.
        where: Rule on its numbers, such as "gain_recovered > .9" (see `registry.gates`).
        every: Whether all versions are listed, and not the newest of each name alone.
        sort: One of `SORTS`.
        after: Where the page begins; see `registry.browse.listing.Page`.

    Raises:
        RegistryError: If the order does not exist, or a text holds signs that no name has.
    """

    text: str = ""
    concept: str = ""
    source: str = ""
    target: str = ""
    family: str = ""
    estimator: str = ""
    alias: str = ""
    where: str = ""
    every: bool = False
    sort: Sort = "new"
    after: str = ""

    def __post_init__(self) -> None:
        if self.sort not in SORTS:
            raise RegistryError(f"There is no order {self.sort!r}; the orders are {', '.join(SORTS)}.")
        for text in (self.text, self.concept, self.source, self.target, self.family, self.estimator, self.alias):
            plain_text(text, f"The filter {text!r}")


def fitting(filters: Filters) -> list[ColumnElement[bool]]:
    """Conditions on a query for versions.

    Raises:
        RegistryError: If the rule cannot be read, or the text has no word.
    """
    found: list[ColumnElement[bool]] = [VersionRow.kind == "transplant"]
    if filters.concept:
        found.append(_among(select(_T.id).where(_T.concept == filters.concept)))
    if filters.family:
        concepts = select(ConceptRow.name).where(ConceptRow.family == filters.family)
        models = select(_MODEL.id).where(_MODEL.family == filters.family)
        found.append(_among(select(_T.id).where(or_(_T.concept.in_(concepts), _T.target_model_id.in_(models)))))
    if filters.target:
        found.append(_among(select(_T.id).where(_T.target_model_id.in_(_models(filters.target)))))
    if filters.source:
        vectors = select(_V.id).where(_V.model_id.in_(_models(filters.source)))
        found.append(_among(select(_T.id).where(_T.vector_id.in_(vectors))))
    if filters.estimator:
        maps = select(_M.id).where(_M.estimator == filters.estimator)
        vectors = select(_V.id).where(_V.estimator == filters.estimator)
        found.append(_among(select(_T.id).where(or_(_T.map_id.in_(maps), _T.vector_id.in_(vectors)))))
    if filters.alias:
        found.append(_among(select(AliasRow.version_id).where(AliasRow.alias == filters.alias)))
    if filters.where:
        found.append(_measured(parse_gate(filters.where)))
    return found + _with_words(filters.text)


def _among(ids: Any) -> ColumnElement[bool]:
    return VersionRow.id.in_(ids)


def _models(model: str) -> Select[Any]:
    named = aliased(VersionRow, flat=True)
    by_reference = select(_MODEL.id).where(_MODEL.reference == model)
    return select(named.id).where(named.kind == "model", or_(named.name == model, named.id.in_(by_reference)))


def _measured(gate: Gate) -> ColumnElement[bool]:
    """Transplants that a validation with such numbers judges; one row of a metric that fits is enough."""
    if not isinstance(gate, Comparison):
        return (and_ if gate.word == "and" else or_)(*(_measured(part) for part in gate.parts))
    holds: Any = OPERATORS[gate.operator](_R[gate.field], gate.number)  # type: ignore[arg-type]  a column compares like a number
    judged = (
        select(_J.transplant_id)
        .join(_R.id.table, _R.validation_id == _J.id)
        .where(_R.metric == gate.metric, _R.arm == gate.arm, holds, _R.split.not_in(CHOSEN_ON))
        .where(_J.transplant_id.is_not(None))
    )
    return _among(judged)


def _with_words(text: str) -> list[ColumnElement[bool]]:
    words = split_words(text)
    if text and not words:
        raise RegistryError(f"There is no word in {text!r} to look for; give letters or digits.")
    found = []
    for word in words:
        begins = select(WordRow.version_id).where(WordRow.word >= word, WordRow.word < word + chr(0x10FFFF))
        tagged = select(TagRow.version_id).where(TagRow.tag.startswith(word, autoescape=True))
        found.append(_among(union_all(begins, tagged)))
    return found
