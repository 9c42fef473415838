"""What a search asks of a version, and how several such questions are asked at once without gathering all that fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select, union_all
from sqlalchemy.orm import Session

from registry.schema import VersionRow

COUNTED = 5_000  # versions up to which it is counted how many fit; more are many, however many


@dataclass(frozen=True)
class Criterion:
    """One thing that is asked.

    Attributes:
        ids: queries for the ids of versions that fit; what one of them gives is enough.
        found: the same asked of one version at a time, by way of an index; None where there is no such index.
        may_lead: whether a list of the ids is worth its time even where they are many.
    """

    ids: tuple[Select[Any], ...]
    found: ColumnElement[bool] | None
    may_lead: bool = True

    def leading(self) -> ColumnElement[bool]:
        """The condition by a list of the ids, which is walked from its end until a page is full."""
        # One list, since with OR all would be fetched and sorted.
        return VersionRow.id.in_(union_all(*self.ids))

    def checked(self) -> ColumnElement[bool]:
        """The condition for versions that another criterion leads to."""
        if self.found is not None:
            return self.found
        return (VersionRow.id + 0).in_(union_all(*self.ids))  # a sum, which no list can lead to


def indexed(*ids: Select[Any]) -> Criterion:
    """A criterion whose queries have an index that begins with what they ask, or with the id that they give."""
    return Criterion(ids, or_(*(query.where(query.selected_columns[0] == VersionRow.id).exists() for query in ids)))


def narrowing(session: Session, criteria: Sequence[Criterion]) -> list[ColumnElement[bool]]:
    """Conditions for all criteria: what fewest fit is gathered and walked, the others are looked up in each of those.

    Args:
        session: One that reads; what fits each criterion is counted where there is a choice.
        criteria: What is asked of each version; any number.
    """
    if len(criteria) == 1 and criteria[0].may_lead:
        return [criteria[0].leading()]
    sizes = _sizes(session, criteria)
    able = [i for i, one in enumerate(criteria) if one.may_lead or sizes[i] < COUNTED]
    first = min(able, key=sizes.__getitem__, default=None)  # of equally many the first given
    return [one.leading() if i == first else one.checked() for i, one in enumerate(criteria)]


def _sizes(session: Session, criteria: Sequence[Criterion]) -> list[int]:
    if not criteria:
        return []
    counted = [union_all(*one.ids).limit(COUNTED).subquery() for one in criteria]
    counts = [select(func.count()).select_from(ids).scalar_subquery() for ids in counted]
    return list(session.execute(select(*counts)).one())
