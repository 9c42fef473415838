"""The lineage as a graph to walk: texts → vector → map → transplant → validation → publication, a column each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape
from sqlalchemy import select
from sqlalchemy.orm import Session

from contrans.validation.wording import spoken
from registry.browse.charts import svg
from registry.browse.links import lineage_url
from registry.browse.reading import Reader
from registry.records import Version
from registry.schema import EdgeRow

COLUMNS = ("text_set", "model", "vector", "map", "transplant", "validation", "publication")
MAX_STEPS = 4
_FAN = 12  # of what a version is made from, and what is made from it, that is followed
_MOST = 80
_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y = 200, 44, 50, 14
_SIGNS = 25  # of a name that fit into a box


@dataclass(frozen=True)
class Node:
    """A box: what it is, its words, where it leads, and whether it is the one asked about."""

    key: str
    column: str
    title: str
    detail: str
    link: str
    root: bool = False


@dataclass(frozen=True)
class Edge:
    """That `child` was made from `parent`, both by the key of their node."""

    parent: str
    child: str
    role: str


@dataclass(frozen=True)
class Graph:
    """Boxes and arrows; `cut` tells that there are more than are shown."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    cut: bool


def around(registry: Reader, root: Version, steps: int) -> Graph:
    """The lineage up and down from a version.

    Args:
        registry: Where it is.
        root: The version asked about.
        steps: How far to go, at most `MAX_STEPS`.
    """
    steps = max(1, min(steps, MAX_STEPS))
    links: set[tuple[int, int, str]] = set()
    reached: dict[int, None] = {root.id: None}
    cut = False
    with registry.session() as session:
        for way in ("up", "down"):
            edge = [root.id]
            for _ in range(steps):
                found: list[tuple[int, int, str]] = []
                for id_ in edge:
                    near, more = _neighbours(session, id_, way)
                    found, cut = [*found, *near], cut or more
                links |= set(found)
                ends = dict.fromkeys(parent if way == "up" else child for child, parent, _ in found)
                edge = [id_ for id_ in ends if id_ not in reached][: max(_MOST - len(reached), 0)]
                reached |= dict.fromkeys(edge)
    known = registry.by_id(reached)
    nodes = [
        Node(str(v), v.kind, v.name, f"{spoken(v.kind)} {v.number}", lineage_url(v), v.id == root.id)
        for v in sorted(known.values(), key=lambda v: v.id)
    ]
    edges = [
        Edge(str(known[parent]), str(known[child]), role)
        for child, parent, role in sorted(links)
        if child in known and parent in known
    ]
    for version in [v for v in known.values() if v.kind in ("transplant", "vector")]:
        for i, publication in enumerate(registry.publications(version)[:3]):
            key = f"publication:{version}:{i}"
            shown = f"published {publication.tag or publication.commit[:10]}"
            nodes.append(Node(key, "publication", publication.repo, shown, ""))
            edges.append(Edge(str(version), key, "published"))
    return Graph(tuple(nodes), tuple(edges), cut or len(reached) >= _MOST)


def _neighbours(session: Session, id_: int, way: str) -> tuple[list[tuple[int, int, str]], bool]:
    near = EdgeRow.child_id if way == "up" else EdgeRow.parent_id
    far = EdgeRow.parent_id if way == "up" else EdgeRow.child_id
    query = select(EdgeRow.child_id, EdgeRow.parent_id, EdgeRow.role).where(near == id_)
    rows = session.execute(query.order_by(far.desc()).limit(_FAN + 1)).all()
    return [(row[0], row[1], row[2]) for row in rows[:_FAN]], len(rows) > _FAN


def draw(graph: Graph) -> Markup:
    """The graph as an SVG whose boxes are links."""
    columns = [c for c in COLUMNS if any(node.column == c for node in graph.nodes)]
    place: dict[str, tuple[float, float]] = {}
    heights: dict[str, int] = {}
    for column in columns:
        x = columns.index(column) * (_BOX_WIDTH + _GAP_X) + 2
        inside = _ordered([n for n in graph.nodes if n.column == column], graph.edges, place)
        for row, node in enumerate(inside):
            place[node.key] = (x, row * (_BOX_HEIGHT + _GAP_Y) + 26)
        heights[column] = len(inside)
    parts = [
        f'<text class="column" x="{columns.index(c) * (_BOX_WIDTH + _GAP_X) + 2}" y="14">{escape(spoken(c))}</text>'
        for c in columns
    ]
    for edge in graph.edges:
        (x1, y1), (x2, y2) = place[edge.parent], place[edge.child]
        start, end = (x1 + _BOX_WIDTH, x2) if x2 > x1 else (x1, x2 + _BOX_WIDTH)
        y1, y2 = y1 + _BOX_HEIGHT / 2, y2 + _BOX_HEIGHT / 2
        bend = (start + end) / 2
        parts.append(
            f'<path class="edge" d="M{start:g},{y1:g} C{bend:g},{y1:g} {bend:g},{y2:g} {end:g},{y2:g}">'
            f"<title>{escape(edge.role)}</title></path>"
        )
    parts += [_box(node, *place[node.key]) for node in graph.nodes]
    width = max(len(columns) * (_BOX_WIDTH + _GAP_X) - _GAP_X + 4, 1)
    height = max(heights.values(), default=1) * (_BOX_HEIGHT + _GAP_Y) + 26
    return svg(
        "Lineage: what was made from what, from left to right", "".join(parts), width, height, "graph", group=True
    )


def _ordered(nodes: Sequence[Node], edges: Sequence[Edge], place: Mapping[str, tuple[float, float]]) -> list[Node]:
    """Nodes of a column by the mean height of what they hang on, so that arrows cross less."""
    heights: dict[str, list[float]] = {}
    for edge in edges:
        for near, far in ((edge.child, edge.parent), (edge.parent, edge.child)):
            if far in place:
                heights.setdefault(near, []).append(place[far][1])
    order = {node.key: i for i, node in enumerate(nodes)}

    def mean(node: Node) -> tuple[float, int]:
        found = heights.get(node.key)
        return (sum(found) / len(found) if found else 0.0, order[node.key])

    return sorted(nodes, key=mean)


def _box(node: Node, x: float, y: float) -> str:
    title = node.title if len(node.title) <= _SIGNS else f"{node.title[: _SIGNS - 13]}…{node.title[-12:]}"
    classes = f"box kind-{node.column}{' root' if node.root else ''}"
    current = ' aria-current="true"' if node.root else ""
    inner = (
        f'<rect x="{x:g}" y="{y:g}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="5"/>'
        f'<text x="{x + 8:g}" y="{y + 18:g}">{escape(title)}</text>'
        f'<text class="detail" x="{x + 8:g}" y="{y + 34:g}">{escape(node.detail)}</text>'
    )
    if not node.link:
        return f'<g class="{classes}">{inner}</g>'
    return f'<a class="{classes}" href="{escape(node.link)}"{current}>{inner}</a>'
