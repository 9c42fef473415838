"""Gain recovered of transplants and of the versions before them: for a column of a list and its sparkline."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from registry.gates import CHOSEN_ON
from registry.lookup import in_batches
from registry.records import Version
from registry.schema import ResultRow, TransplantRow, ValidationRow, VersionRow

# Tables, not classes: those of a kind would each join the table of all versions.
_T, _J, _R = TransplantRow.__table__.c, ValidationRow.__table__.c, ResultRow.__table__.c


@dataclass(frozen=True)
class Gain:
    """Gain recovered of one version; `number` is the version's."""

    number: int
    value: float
    low: float | None
    high: float | None


def is_gain(*, of_few: bool = False) -> list[ColumnElement[bool]]:
    """Conditions on a query for results: gain recovered of a transplant, on a split that nothing was chosen on.

    Args:
        of_few: Whether the query names few validations; then the database is kept from reading the metric's whole
            index, which SQLite takes for the better one.
    """
    metric = func.coalesce(_R.metric, "") if of_few else _R.metric
    return [
        metric == "gain_recovered",
        _R.arm == "transplanted",
        _R.value.is_not(None),
        _R.split.not_in(CHOSEN_ON),
    ]


def gains_of(session: Session, found: Sequence[Version], *, back: int) -> dict[int, tuple[Gain, ...]]:
    """Gain recovered of transplants and of the versions of their names before them.

    Args:
        session: One that reads.
        found: Versions of any kind.
        back: How many versions of a name to look at, that one with them.

    Returns:
        By the key of each transplant among `found`, the oldest first; of a version that has no gain there is none.
    """
    wanted = [version for version in found if version.kind == "transplant"]
    numbers: dict[str, list[int]] = {}
    for version in wanted:
        numbers.setdefault(version.name, []).append(version.number)
    ids: dict[tuple[str, int], int] = {}
    for name, of in numbers.items():
        for first, last in windows(of, back):
            query = select(VersionRow.number, VersionRow.id).where(
                VersionRow.kind == "transplant", VersionRow.name == name, VersionRow.number.between(first, last)
            )
            ids |= {(name, row[0]): row[1] for row in session.execute(query)}
    number_of = {id_: number for (_, number), id_ in ids.items()}
    gains: dict[int, Gain] = {}
    for batch in in_batches(number_of):
        query = (
            select(_J.transplant_id, _R.value, _R.low, _R.high)
            .join(_T.id.table, _T.id == _J.transplant_id)
            .join(_R.id.table, _R.validation_id == _J.id)
            .where(_J.transplant_id.in_(batch), _R.concept == _T.concept, *is_gain(of_few=True))
            .order_by(_R.id)  # the latest validation of a version counts
        )
        gains |= {row[0]: Gain(number_of[row[0]], *row[1:]) for row in session.execute(query)}
    return {version.id: tuple(_until(version, back, ids, gains)) for version in wanted}


def windows(numbers: Iterable[int], back: int) -> list[tuple[int, int]]:
    """The stretches that numbers and the `back - 1` before each cover, as (first, last), those that touch joined."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        first = max(1, number - back + 1)
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((first, number))
    return found


def _until(version: Version, back: int, ids: dict[tuple[str, int], int], gains: dict[int, Gain]) -> Iterator[Gain]:
    for number in range(version.number - back + 1, version.number + 1):
        gain = gains.get(ids.get((version.name, number), 0))
        if gain is not None:
            yield gain
