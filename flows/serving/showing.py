"""What a run leaves on the server for people to look at: tables, figures, progress, assets with their lineage, tags."""

import base64
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

from prefect import get_client
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.assets import Asset, AssetProperties, materialize
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from contrans.errors import ContransError
from contrans.report.evidence import evidence_of
from contrans.report.heatmap import heatmap
from flows.progress import Watcher
from flows.serving.reaping import HOST, HOST_TAG, MOST_STARTS
from registry import Registry, Version

log = logging.getLogger(__name__)

SCHEME = "contrans"
_ASSETS = ("model", "text_set", "vector", "map", "transplant")
_MOST_ROWS = 1000


class Progress:
    """A progress artifact that moves with the steps of a run; a watcher (see `flows.progress`).

    Args:
        expected: gives the number of steps, once it is known.
        beside: is told the same.
    """

    def __init__(self, expected: Callable[[], int], beside: Watcher) -> None:
        self._expected, self._beside = expected, beside
        self._done = 0
        self._artifact: Any = create_progress_artifact(0.0, key="contrans-progress", description="Steps that are done")

    def say(self, text: str) -> None:
        """Passes it on."""
        self._beside.say(text)

    def begin(self, step: str, tokens: int) -> None:
        """Passes it on."""
        self._beside.begin(step, tokens)

    def advance(self, tokens: int) -> None:
        """Passes it on."""
        self._beside.advance(tokens)

    def end(self, step: str, seconds: float, *, computed: bool) -> None:
        """Moves on by a step."""
        self._beside.end(step, seconds, computed=computed)
        self._done += 1
        update_progress_artifact(self._artifact, round(100 * self._done / max(self._expected(), self._done), 1))


def leave_figure(png: bytes, key: str, description: str) -> None:
    """Leaves a figure: the picture itself, so that no web server is needed to see it.

    Args:
        png: A PNG.
        key: Lower-case letters, digits and dashes; figures of one key are versions of one another.
        description: What it shows, in Markdown.
    """
    address = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    create_image_artifact(image_url=address, key=key, description=description)


def leave_results(found: Mapping[str, Any], figure: bytes | None) -> None:
    """Leaves the tables of a pipeline's document (see `flows.results`), every number of it, and its figure."""
    spec = found["spec"]
    name = f"{spec['source']} → {spec['target']}"
    text = "\n\n".join(part.markdown() for part in evidence_of(found) if hasattr(part, "markdown"))
    if text:
        create_markdown_artifact(text, key="contrans-results", description=f"Results of {name}")
    rows = [row for row in found["validations"] if row["split"] != "dev"][:_MOST_ROWS]
    create_table_artifact(rows, key="contrans-validation", description=f"Every number on test, {name}")
    if figure is not None:
        leave_figure(figure, "contrans-dose", f"Effect by dose, {name}")


def leave_pairs(cells: Mapping[tuple[str, str], float], *, unit: str) -> None:
    """Leaves a heat map of pairs of models.

    Args:
        cells: a value for each pair of source and target.
        unit: what the values are, such as "gain recovered".
    """
    sources, targets = (list(dict.fromkeys(pair[side] for pair in cells)) for side in (0, 1))
    values = [[cells.get((source, target), float("nan")) for target in targets] for source in sources]
    png = heatmap(values, sources, targets, title="Who can give to whom", unit=unit)
    leave_figure(png, "contrans-pairs", f"{unit.capitalize()} by source (rows) and target (columns)")


def asset_of(version: Version) -> Asset:
    """A version of the registry as an asset: one of each name, whose materialisations are its versions."""
    kind = f"{version.kind} {version.name}"
    key = f"{SCHEME}://registry/{version.kind}/{quote(version.name, safe='/')}"
    return Asset(key=key, properties=AssetProperties(name=kind))


def leave_assets(versions: Iterable[Version], registry: Registry) -> None:
    """Notes vectors, maps and transplants as materialised, each from what it was made from.

    Args:
        versions: What a run registered or came upon; models and texts are only named as what others come from.
        registry: Has the lineage.
    """
    for version in versions:
        if version.kind not in ("vector", "map", "transplant"):
            continue
        parents = [parent for _, parent in registry.lineage(version, "up", depth=1).parents(version)]
        asset = asset_of(version)

        def note(version: Version = version, asset: Asset = asset) -> None:
            asset.add_metadata({"version": version.ref, "digest": version.digest})

        upstream: list[str | Asset] = [*dict.fromkeys(asset_of(p) for p in parents if p.kind in _ASSETS)]
        materialize(asset, by="contrans", asset_deps=upstream, name=f"note {version.ref}", cache_policy=NO_CACHE)(
            note
        )()


def begin_run(tags: Sequence[str]) -> None:
    """Puts tags on the flow run that begins, beside those that it has: those given, and the machine that it is on.

    Raises:
        ContransError: It has begun too often, and ended without a word each time.
    """
    if flow_run.get_id() is None:
        return
    own = UUID(flow_run.get_id())
    with get_client(sync_client=True) as client:
        known = client.read_flow_run(own)
        # that of the machine where it began before is not true any more
        kept = [tag for tag in known.tags if not tag.startswith(HOST_TAG)]
        client.update_flow_run(own, tags=sorted({*kept, *tags, HOST}))
    if known.run_count > MOST_STARTS:
        raise ContransError(f"This run began {known.run_count} times and its process was gone each time; see its logs.")
