"""What the pages show, put together from the registry; no HTTP here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contrans.errors import RegistryError
from registry.browse.charts import sparkline
from registry.browse.evidence import Panel, panels
from registry.browse.facts import VECTOR_FILES, python_lines, sentence, settings
from registry.browse.links import query_url
from registry.browse.listing import Line
from registry.browse.reading import Publication, Reader
from registry.records import Run, Version

_VALIDATIONS = 6  # on the page of a map or vector, which many may judge
_RUNS = 5


@dataclass(frozen=True)
class VersionPage:
    """All that the page of a version shows; see its template."""

    version: Version
    sentence: str
    panels: Sequence[Panel]
    python: str | None
    inputs: Sequence[tuple[str, Version]]
    used_by: Sequence[tuple[str, Version]]
    settings: dict[str, str]
    files: dict[str, str]
    tags: Sequence[str]
    publications: Sequence[Publication]
    runs: Sequence[Run]
    playable: str
    older: str


def version_page(registry: Reader, version: Version) -> VersionPage:
    """The page of a version.

    Raises:
        RegistryError: If a file of it is missing from the store or damaged.
    """
    inputs = registry.inputs(version)
    files = registry.files(version)
    return VersionPage(
        version=version,
        sentence=sentence(version, inputs),
        panels=_panels(registry, version, dict(inputs)),
        python=python_lines(version, inputs, list(files)),
        inputs=inputs,
        used_by=registry.used_by(version),
        settings=settings(version.manifest),
        files=files,
        tags=registry.tags(version),
        publications=registry.publications(version),
        runs=registry.runs(version=version, limit=_RUNS),
        playable=_playable(version, dict(inputs), files),
        older="" if version.number == 1 else _compare_with(registry, version),
    )


def spark(line: Line) -> Any:
    """The sparkline of a line of the list."""
    words = "no gain" if line.gain is None else f"{line.gain.value:.2f}"
    values = [gain.value for gain in line.gains]
    return sparkline(values, f"Gain recovered over {len(values)} versions, now {words}")


def _panels(registry: Reader, version: Version, inputs: dict[str, Version]) -> list[Panel]:
    if version.kind == "validation":
        return panels(registry, version, inputs.get("transplant"))
    if version.kind not in ("transplant", "vector", "map"):
        return []
    found = []
    for validation in registry.validations(version)[-_VALIDATIONS:]:
        judged = version
        if version.kind != "transplant":
            known = dict(registry.inputs(validation))
            judged = known.get("transplant", version)
        found += panels(registry, validation, judged)
    return found


def _playable(version: Version, inputs: dict[str, Version], files: dict[str, str]) -> str:
    if version.kind != "transplant" or "target" not in inputs or not set(VECTOR_FILES) <= files.keys():
        return ""
    return query_url("/play", target=inputs["target"].name, concept1=str(version))


def _compare_with(registry: Reader, version: Version) -> str:
    before = f"{version.kind}:{version.name}@{version.number - 1}"
    try:
        registry.get(before)
    except RegistryError:
        return ""
    return f"{query_url('/compare', v=before)}&{query_url('', v=str(version))[1:]}"
