"""Two overviews: gain recovered by pair of models, and the vectors of one model beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from sqlalchemy import func, or_, select
from sqlalchemy.orm import aliased

from contrans.errors import RegistryError
from registry.browse.charts import scatter
from registry.browse.links import query_url, version_url
from registry.browse.listing import are_few_names
from registry.browse.reading import Reader
from registry.browse.vectors import Array, blocks_of, cosines, plane
from registry.gains import is_gain
from registry.lookup import to_version, versions
from registry.records import Version
from registry.schema import NameRow, ResultRow, TransplantRow, ValidationRow, VectorRow, VersionRow

_MOST = 40  # vectors of one model
_T, _V = TransplantRow.__table__.c, VectorRow.__table__.c
_J, _R = ValidationRow.__table__.c, ResultRow.__table__.c


@dataclass(frozen=True)
class Pair:
    """A cell of the heat map: gain recovered as a mean over `n` names of transplants, and where its evidence is."""

    source: str
    target: str
    gain: float | None
    n: int
    link: str


def pairs(registry: Reader) -> list[Pair]:
    """Every pair of models, with the newest version of each name."""
    with registry.session() as session:
        rows: list[tuple[Any, ...]] = [tuple(row) for row in session.execute(_mean_gains(few=are_few_names(session)))]
    return [Pair(s, t, g, n, query_url("/", source=s, target=t, sort="gain")) for s, t, g, n in rows]


def _mean_gains(*, few: bool) -> Any:
    source, target = aliased(VersionRow, flat=True), aliased(VersionRow, flat=True)
    gain = (
        select(_J.transplant_id.label("id"), func.max(_R.value).label("value"))
        .join(_R.id.table, _R.validation_id == _J.id)
        .join(_T.id.table, _T.id == _J.transplant_id)
        .join(VersionRow, VersionRow.id == _T.id)
        .join(NameRow, _is_newest())
        .where(_R.concept == _T.concept, *is_gain(of_few=few))
        .group_by(_J.transplant_id)
        .subquery()
    )
    return (
        select(source.name, target.name, func.avg(gain.c.value), func.count())
        .select_from(VersionRow)
        .join(_T.id.table, _T.id == VersionRow.id)
        .join(NameRow, _is_newest())
        .join(_V.id.table, _V.id == _T.vector_id)
        .join(source, source.id == _V.model_id)
        .join(target, target.id == _T.target_model_id)
        .outerjoin(gain, gain.c.id == _T.id)
        .group_by(source.name, target.name)
        .order_by(source.name, target.name)
    )


@dataclass(frozen=True)
class Space:
    """The vectors of one model at one block.

    Attributes:
        model: Name of the model.
        block: The block.
        blocks: Blocks that there are vectors at.
        versions: The vectors, refined there or transplanted into it.
        cosines: Cosine of each with each, [k, k].
        chart: The first two principal components as an SVG.
        shares: Shares of the variance that these hold.
    """

    model: str
    block: int | None
    blocks: tuple[int, ...]
    versions: tuple[Version, ...]
    cosines: Sequence[Sequence[float]]
    chart: Markup
    shares: tuple[float, float]


def models_with_vectors(registry: Reader) -> list[str]:
    """Names of the models that there are vectors of, refined there or transplanted into them."""
    return _named(registry, select(_V.model_id).union(select(_T.target_model_id)))


def models_with_transplants(registry: Reader) -> list[str]:
    """Names of the models that there are transplants into."""
    return _named(registry, select(_T.target_model_id))


def _named(registry: Reader, ids: Any) -> list[str]:
    query = select(VersionRow.name).where(VersionRow.kind == "model", VersionRow.id.in_(ids)).distinct()
    with registry.session() as session:
        return list(session.scalars(query.order_by(VersionRow.name)))


def space_of(registry: Reader, model: str, block: int | None) -> Space:
    """The space of a model's vectors.

    Args:
        registry: Where they are.
        model: Its name.
        block: The block; by default the one that most vectors have a direction at.

    Raises:
        RegistryError: If there is no such model, or no vector at that block.
    """
    found = {v: blocks_of(registry, v) for v in _vectors(registry, model)}
    if not found:
        raise RegistryError(f"There are no vectors of a model named {model[:80]!r} in the registry.")
    counts: dict[int, int] = {}
    for blocks in found.values():
        for at in blocks:
            counts[at] = counts.get(at, 0) + 1
    chosen = block if block is not None else max(counts, key=lambda at: (counts[at], -at), default=None)
    kept = [(v, blocks[chosen]) for v, blocks in found.items() if chosen is not None and chosen in blocks]
    if not kept:
        raise RegistryError(f"No vector of {model} has a direction at block {chosen}; it has {sorted(counts)}.")
    width = kept[0][1].shape
    kept = [(v, direction) for v, direction in kept if direction.shape == width]
    matrix: Array = np.stack([direction for _, direction in kept])
    at, shares = plane(matrix)
    labels = [(float(x), float(y), _label(v), version_url(v)) for (v, _), (x, y) in zip(kept, at, strict=True)]
    title = f"Vectors of {model} at block {chosen}: first two principal components"
    return Space(
        model,
        chosen,
        tuple(sorted(counts)),
        tuple(v for v, _ in kept),
        [[float(c) for c in row] for row in cosines(matrix)],
        scatter(title, labels),
        shares,
    )


def _label(version: Version) -> str:
    how = "own" if version.kind == "vector" else "transplant"
    return f"{version.manifest.get('concept', version.name)} ({how})"


def _vectors(registry: Reader, model: str) -> list[Version]:
    named = select(VersionRow.id).where(VersionRow.kind == "model", VersionRow.name == model)
    ids = or_(
        VersionRow.id.in_(select(_V.id).where(_V.model_id.in_(named))),
        VersionRow.id.in_(select(_T.id).where(_T.target_model_id.in_(named))),
    )
    query = versions().join(NameRow, _is_newest()).where(ids).order_by(VersionRow.name, VersionRow.id).limit(_MOST)
    with registry.session() as session:
        return [to_version(row) for row in session.scalars(query)]


def _is_newest() -> Any:
    return (NameRow.kind == VersionRow.kind) & (NameRow.name == VersionRow.name) & (NameRow.last == VersionRow.number)
