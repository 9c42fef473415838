"""Chosen versions with all that they were made from, carried from one registry to another in an archive."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from contrans.errors import RegistryError
from registry.aliases import judgements, measured
from registry.archive import Archive, writing
from registry.blobs import BlobStore
from registry.drafts import Draft
from registry.lineage import trace
from registry.names import check_kind, check_name, check_tag, plain_json
from registry.records import Result, Version
from registry.schema import ConceptRow, FileRow, TagRow
from registry.writing import insert_all, insert_all_missing

_KEYS = {"kind", "name", "number", "digest", "manifest", "files", "inputs", "results", "tags"}
_SHORT = 2**40  # bytes no file has


def export(session: Session, blobs: BlobStore, chosen: Iterable[Version], path: Path) -> list[Version]:
    """Writes versions, what judges the transplants among them, and the lineage of all; see `Registry.export`.

    Returns:
        What was written, inputs before what was made from them.
    """
    wanted = list(chosen)
    wanted += [judge for each in wanted if each.kind == "transplant" for judge in judgements(session, each)]
    found: dict[int, Version] = {}
    inputs: dict[int, dict[str, str]] = {}
    for version in dict.fromkeys(wanted):
        lineage = trace(session, version, "up", None)
        found |= {each.id: each for each in lineage.versions}
        for each in lineage.versions:
            inputs[each.id] = {role: parent.digest for role, parent in lineage.parents(each)}
    versions = [found[id_] for id_ in sorted(found)]  # a version has a higher id than its inputs
    header = {
        "created": datetime.now(UTC).isoformat(),
        "versions": [str(version) for version in versions],
        "chosen": [str(version) for version in dict.fromkeys(wanted)],
    }
    with writing(path, "export", header) as archive:
        rows = [_row(session, version, inputs[version.id]) for version in versions]
        archive.add_rows("version", rows)
        archive.add_rows("concept", _concepts(session))
        for sha256, size in sorted({(sha256, size) for row in rows for sha256, size in row["files"].values()}):
            archive.add_blob(sha256, blobs.get(sha256, size))
    return versions


def drafts(archive: Archive) -> dict[Draft, tuple[str, ...]]:
    """The versions of an export, with the tags of each, checked.

    Raises:
        RegistryError: If one is not what its digest says, or something that it needs is not in the archive.
    """
    found: dict[Draft, tuple[str, ...]] = {}
    for row in archive.rows("version"):
        try:
            draft, tags = _draft(row)
        except (TypeError, ValueError, KeyError, AttributeError, RegistryError) as error:
            raise archive.damaged(f"the version {str(row.get('name'))[:100]!r} cannot be read") from error
        if draft.digest != row["digest"]:
            raise archive.damaged(f"{draft.kind}:{draft.name} is not what its digest says")
        missing = [sha256 for sha256, size in draft.files.values() if archive.blobs.get(sha256) != size]
        if missing:
            raise archive.damaged(f"it does not hold the blob {missing[0][:12]} of {draft.kind}:{draft.name}")
        found[draft] = tags
    known = {draft.digest for draft in found}
    for draft in found:
        if not known.issuperset(draft.inputs.values()):
            raise archive.damaged(f"it does not hold all that {draft.kind}:{draft.name} was made from")
    return found


def insert(session: Session, found: Mapping[Draft, tuple[str, ...]], archive: Archive) -> list[Version]:
    """Registers the versions of an export, whose blobs are in the store, and their tags and concepts."""
    versions = insert_all(session, list(found))
    tags = [
        {"version_id": version.id, "tag": tag}
        for version, given in zip(versions, found.values(), strict=True)
        for tag in given
    ]
    insert_all_missing(session, TagRow, sorted(tags, key=lambda tag: (tag["version_id"], tag["tag"])))
    for row in archive.rows("concept"):
        _describe(session, row, archive)
    return versions


def _row(session: Session, version: Version, inputs: Mapping[str, str]) -> dict[str, Any]:
    files = session.scalars(select(FileRow).where(FileRow.version_id == version.id).order_by(FileRow.filename))
    return {
        "kind": version.kind,
        "name": version.name,
        "number": version.number,
        "digest": version.digest,
        "manifest": version.manifest,
        "files": {file.filename: [file.sha256, file.size] for file in files},
        "inputs": dict(inputs),
        "results": [asdict(result) for result in measured(session, version)],
        "tags": sorted(session.scalars(select(TagRow.tag).where(TagRow.version_id == version.id))),
    }


def _concepts(session: Session) -> Iterator[dict[str, Any]]:
    for row in session.scalars(select(ConceptRow).order_by(ConceptRow.name)):
        if row.family is not None or row.description is not None:
            yield {"name": row.name, "family": row.family, "description": row.description}


def _draft(row: Mapping[str, Any]) -> tuple[Draft, tuple[str, ...]]:
    if set(row) != _KEYS:
        raise ValueError(f"the keys are {sorted(row)}")
    files: dict[str, tuple[str, int]] = {}
    for filename, (sha256, size) in row["files"].items():
        if not isinstance(sha256, str) or type(size) is not int or not 0 <= size < _SHORT:
            raise ValueError(f"{filename} has no hash and size")
        files[check_name(filename, "file name")] = (sha256, size)
    inputs = {check_name(role, "role"): str(parent) for role, parent in row["inputs"].items()}
    if not isinstance(row["results"], list):
        raise TypeError("results are a list")  # an empty mapping would pass for none
    results = tuple(Result(**result) for result in row["results"])
    if results and row["kind"] != "validation":
        raise ValueError("only a validation has results")
    draft = Draft(
        kind=check_kind(row["kind"]),
        name=check_name(row["name"]),
        manifest=plain_json(row["manifest"], "manifest"),
        files=files,
        inputs=inputs,
        results=results,
    )
    return draft, tuple(check_tag(tag) for tag in row["tags"])


def _describe(session: Session, row: Mapping[str, Any], archive: Archive) -> None:
    """Takes over what is known of a concept that came along, where nothing is known here."""
    try:
        known = session.get(ConceptRow, check_name(row["name"], "concept"))
        family = row["family"] and check_name(row["family"], "family")
        description = row["description"] and str(row["description"])
    except (TypeError, KeyError, AttributeError, RegistryError) as error:
        raise archive.damaged("a concept cannot be read") from error
    if known is not None:
        known.family = known.family or family
        known.description = known.description or description
