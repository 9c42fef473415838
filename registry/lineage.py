"""What a version was made from, what was made from it, and what rests on something that has changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from sqlalchemy import Select, exists, literal, select
from sqlalchemy.orm import Session, aliased

from contrans.errors import RegistryError
from registry.lookup import in_batches, to_version, versions
from registry.names import check_kind
from registry.records import Outdated, Version
from registry.schema import EdgeRow, NameRow, VersionRow

Direction = Literal["up", "down", "both"]


@dataclass(frozen=True)
class Edge:
    """That `child` was made from `parent`, which served as `role`; both by id."""

    child: int
    parent: int
    role: str


@dataclass(frozen=True)
class Step:
    """One line of a lineage drawn as a tree.

    Attributes:
        depth: 0 for the root.
        role: What the edge that led here is for; "" for the root.
        version: The version.
        repeated: Whether it stood further up already; what hangs on it is then left out.
    """

    depth: int
    role: str
    version: Version
    repeated: bool


@dataclass(frozen=True)
class Lineage:
    """A version with what it was made from ("up"), what was made from it ("down"), or both.

    Attributes:
        root: The version asked about.
        direction: "up", "down" or "both".
        versions: All versions reached, the root included, in the order of registration.
        edges: All edges between them.
    """

    root: Version
    direction: Direction
    versions: tuple[Version, ...]
    edges: tuple[Edge, ...]

    def parents(self, version: Version) -> list[tuple[str, Version]]:
        """What a version was made from, as (role, version), as far as reached."""
        return self._above.get(version.id, [])

    def children(self, version: Version) -> list[tuple[str, Version]]:
        """What was made from a version, as (role, version), as far as reached."""
        return self._below.get(version.id, [])

    def walk(self, direction: Literal["up", "down"]) -> Iterator[Step]:
        """Goes through the lineage as a tree, depth first, from the root."""
        follow = self._above if direction == "up" else self._below
        seen: set[int] = set()
        stack = [(0, "", self.root)]
        while stack:  # not recursive: a lineage may be deeper than Python's stack
            depth, role, version = stack.pop()
            yield Step(depth, role, version, repeated=version.id in seen)
            if version.id not in seen:
                seen.add(version.id)
                links = follow.get(version.id, [])
                stack += [(depth + 1, role, other) for role, other in reversed(links)]

    def as_json(self) -> dict[str, Any]:
        """Gives `root`, `direction`, `versions` and `edges` (child, parent, role) as plain JSON."""
        names = {version.id: str(version) for version in self.versions}
        return {
            "root": str(self.root),
            "direction": self.direction,
            "versions": [version.as_json() for version in self.versions],
            "edges": [
                {"child": names[edge.child], "parent": names[edge.parent], "role": edge.role} for edge in self.edges
            ],
        }

    @cached_property
    def _by_id(self) -> dict[int, Version]:
        return {version.id: version for version in self.versions}

    @cached_property
    def _above(self) -> dict[int, list[tuple[str, Version]]]:
        links: dict[int, list[tuple[str, Version]]] = {}
        for edge in self.edges:
            links.setdefault(edge.child, []).append((edge.role, self._by_id[edge.parent]))
        return links

    @cached_property
    def _below(self) -> dict[int, list[tuple[str, Version]]]:
        links: dict[int, list[tuple[str, Version]]] = {}
        for edge in self.edges:
            links.setdefault(edge.parent, []).append((edge.role, self._by_id[edge.child]))
        return links


def trace(session: Session, root: Version, direction: Direction, depth: int | None) -> Lineage:
    """Walks the lineage of a version in the database; see `Registry.lineage`."""
    if direction not in ("up", "down", "both"):
        raise RegistryError(f"There is no direction {direction!r}; the directions are up, down and both.")
    _check_depth(depth)
    found = {root.id: root}
    edges: dict[tuple[int, str], Edge] = {}
    for way in ("up", "down"):
        if direction not in (way, "both"):
            continue
        reached, followed = _reached(select(literal(root.id)), way, depth)
        # Twice the same recursive query is cheaper than sending thousands of ids back.
        for row in session.scalars(versions().where(VersionRow.id.in_(reached))):
            found[row.id] = to_version(row)
        near = EdgeRow.child_id if way == "up" else EdgeRow.parent_id
        for row in session.scalars(select(EdgeRow).where(near.in_(followed))):
            edges[row.child_id, row.role] = Edge(row.child_id, row.parent_id, row.role)
    return Lineage(
        root=root,
        direction=direction,
        versions=tuple(found[key] for key in sorted(found)),
        edges=tuple(edges[key] for key in sorted(edges)),
    )


def made_from(session: Session, starts: Select[Any], depth: int | None, kind: str | None) -> list[Version]:
    """Everything made, directly or through others, from the versions whose ids a query gives, those left out."""
    _check_depth(depth)
    reached, _ = _reached(starts, "down", depth)
    query = versions().where(VersionRow.id.in_(reached), VersionRow.id.not_in(starts)).order_by(VersionRow.id)
    if kind is not None:
        query = query.where(VersionRow.kind == check_kind(kind))
    return [to_version(row) for row in session.scalars(query)]


def outdated(session: Session, root: Version | None, *, superseded: bool) -> list[Outdated]:
    """Finds versions that rest on one with a newer version of the same name; see `Registry.stale`."""
    used, child = aliased(VersionRow, flat=True), aliased(VersionRow, flat=True)
    name, newest = aliased(NameRow), aliased(VersionRow, flat=True)
    old = (
        select(EdgeRow.child_id.label("child"), EdgeRow.role.label("role"), EdgeRow.parent_id.label("used"))
        .join(used, used.id == EdgeRow.parent_id)
        .join(name, (name.kind == used.kind) & (name.name == used.name) & (name.last > used.number))
    )
    if root is not None:  # only what stands above it matters
        above, _ = _reached(select(literal(root.id)), "up", None)
        old = old.where(EdgeRow.child_id.in_(above))
    resting = old.cte("resting", recursive=True)
    resting = resting.union(
        select(EdgeRow.child_id, resting.c.role, resting.c.used).join(resting, EdgeRow.parent_id == resting.c.child)
    )
    direct = exists().where(
        EdgeRow.child_id == resting.c.child, EdgeRow.parent_id == resting.c.used, EdgeRow.role == resting.c.role
    )
    current = aliased(NameRow)
    query = (
        select(resting.c.child, resting.c.role, resting.c.used, newest.id, direct)
        .join(child, child.id == resting.c.child)
        .join(current, (current.kind == child.kind) & (current.name == child.name))
        .join(used, used.id == resting.c.used)
        .join(name, (name.kind == used.kind) & (name.name == used.name))
        .join(newest, (newest.kind == name.kind) & (newest.name == name.name) & (newest.number == name.last))
        .order_by(resting.c.child, resting.c.used, resting.c.role)
    )
    if root is not None:
        query = query.where(child.id == root.id)
    elif not superseded:
        query = query.where(child.number == current.last)
    rows = [tuple(row) for row in session.execute(query)]
    by_id: dict[int, Version] = {}
    for batch in in_batches({id_ for row in rows for id_ in (row[0], row[2], row[3])}):
        by_id |= {row.id: to_version(row) for row in session.scalars(versions().where(VersionRow.id.in_(batch)))}
    return [Outdated(by_id[row[0]], str(row[1]), by_id[row[2]], by_id[row[3]], bool(row[4])) for row in rows]


def _check_depth(depth: int | None) -> None:
    if depth is not None and depth < 0:
        raise RegistryError(f"A depth of {depth} is not possible; give 0 or more, or none for all.")


def _reached(starts: Select[Any], way: str, depth: int | None) -> tuple[Select[Any], Select[Any]]:
    """Queries for the ids within `depth` steps of some, and for those of them from which one goes on."""
    near, far = EdgeRow.child_id, EdgeRow.parent_id
    if way == "down":
        near, far = far, near
    (start,) = starts.subquery().c
    if depth is None:
        # UNION without a depth column visits each version once, however many ways lead to it.
        every = select(start.label("id")).cte("reached", recursive=True)
        every = every.union(select(far).join(every, near == every.c.id))
        return select(every.c.id), select(every.c.id)
    level = select(start.label("id"), literal(0).label("depth")).cte("reached", recursive=True)
    level = level.union(select(far, level.c.depth + 1).join(level, near == level.c.id).where(level.c.depth < depth))
    return select(level.c.id), select(level.c.id).where(level.c.depth < depth)
