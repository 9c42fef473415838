"""Gain recovered of transplants and of the versions before them, for a column of a list and its sparkline."""

from collections.abc import Sequence

from sqlalchemy import select

from registry import Version
from registry.browse.filtering import is_gain
from registry.browse.listing import Gain
from registry.browse.reading import Reader
from registry.lookup import in_batches
from registry.schema import ResultRow, TransplantRow, ValidationRow, VersionRow

TREND = 8  # versions of a name in its sparkline

# Tables, not classes: those of a kind would each join the table of all versions.
_T, _J, _R = TransplantRow.__table__.c, ValidationRow.__table__.c, ResultRow.__table__.c


def gains_of(registry: Reader, found: Sequence[Version]) -> dict[str, dict[int, Gain]]:
    """Gains of the transplants among versions, and of `TREND` versions up to each.

    Args:
        registry: Where they are.
        found: Versions of any kind.

    Returns:
        By name and number; the oldest of a name first. What has no gain is not there.
    """
    numbers: dict[str, list[int]] = {}
    for version in found:
        if version.kind == "transplant":
            numbers.setdefault(version.name, []).append(version.number)
    known: dict[int, tuple[str, int]] = {}
    gains: dict[str, dict[int, Gain]] = {name: {} for name in numbers}
    with registry.session() as session:
        for name, of in numbers.items():
            wanted = VersionRow.number.between(min(of) - TREND + 1, max(of))
            query = select(VersionRow.id, VersionRow.number).where(VersionRow.kind == "transplant", wanted)
            rows = session.execute(query.where(VersionRow.name == name).order_by(VersionRow.number))
            known |= {row[0]: (name, row[1]) for row in rows}
        for batch in in_batches(known):
            query = (
                select(_J.transplant_id, _R.value, _R.low, _R.high)
                .join(_T.id.table, _T.id == _J.transplant_id)
                .join(_R.id.table, _R.validation_id == _J.id)
                .where(_J.transplant_id.in_(batch), _R.concept == _T.concept, *is_gain())
                .order_by(_R.id)  # the latest validation of a version counts
            )
            for id_, *values in session.execute(query):
                name, number = known[id_]
                gains[name][number] = Gain(number, *values)
    return {name: dict(sorted(of.items())) for name, of in gains.items()}
