"""The parts of a manifest, from what the registry holds."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from contrans.concepts import ConceptVector
from registry.api import Registry
from registry.hub.manifest import (
    Ancestor,
    BlockEntry,
    FileEntry,
    ModelEntry,
    Registered,
    ResultEntry,
    Split,
    ValidationEntry,
    VectorEntry,
)
from registry.hub.public import base_model, cleaned
from registry.hub.tensors import source_tensor, target_tensor
from registry.lineage import Lineage
from registry.records import Version

_LIBRARIES = ("contrans", "torch", "transformers", "safetensors", "numpy", "huggingface_hub")


def registered_entry(version: Version) -> Registered:
    """A version of the registry."""
    return Registered(kind=version.kind, name=version.name, number=version.number, digest=version.digest)


def vector_entry(version: Version, vector: ConceptVector, names: dict[str, str]) -> VectorEntry:
    """A vector or transplant, without places on this disk."""
    model = vector.model
    is_source = version.kind == "vector"
    block, dose = version.manifest.get("block"), version.manifest.get("dose")
    return VectorEntry(
        registered=registered_entry(version),
        model=ModelEntry(**cleaned(model.to_json(), names), base_model=base_model(model.reference, model.revision)),
        blocks={
            str(b): BlockEntry(
                tensor=source_tensor(b) if is_source else target_tensor(model.name, b),
                spread=vector.spread[b],
                residual_norm=vector.residual_norm[b],
            )
            for b in vector.blocks
        },
        block=block if block in vector.blocks else None,
        dose=float(dose) if isinstance(dose, (int, float)) else None,
        provenance=cleaned(vector.provenance, names),
    )


def figures_of(registry: Registry, validation: Version, transplant: Version, model: str) -> dict[str, bytes]:
    """The figures of a validation, by their paths in the repository."""
    folder = f"figures/{model}/{validation.name.removeprefix(f'{transplant.name}/')}"
    return {
        f"{folder}/{name}": registry.read(validation, name)
        for name in registry.files(validation)
        if name.endswith(".png")
    }


def validation_entry(
    registry: Registry, validation: Version, transplant: Version, figures: list[str], names: dict[str, str]
) -> ValidationEntry:
    """A validation of a transplant, with its numbers."""
    return ValidationEntry(
        registered=registered_entry(validation),
        of=transplant.ref,
        protocol=str(validation.manifest["protocol"]),
        settings=cleaned(validation.manifest, names),
        results=[ResultEntry(**asdict(result)) for result in registry.results(validation)],
        figures=figures,
    )


def split_entries(lineages: Sequence[Lineage], names: dict[str, str]) -> list[Split]:
    """The sets of texts in some lineages, with what they served as."""
    roles: dict[int, set[str]] = {}
    versions = {v.id: v for lineage in lineages for v in lineage.versions if v.kind == "text_set"}
    for lineage in lineages:
        for edge in lineage.edges:
            if edge.parent in versions:
                roles.setdefault(edge.parent, set()).add(edge.role)
    return [
        Split(
            registered=registered_entry(v),
            hash=v.manifest["hash"],
            split=v.manifest.get("split"),
            n_texts=v.manifest.get("n_texts"),
            licence=cleaned(v.manifest.get("licence"), names),
            roles=sorted(roles.get(v.id, set())),
        )
        for v in sorted(versions.values(), key=lambda v: (v.name, v.number))
    ]


def ancestor_entry(version: Version, lineages: Sequence[Lineage], names: dict[str, str]) -> Ancestor:
    """A version of a lineage, with its settings."""
    inputs = {role: parent.digest for lineage in lineages for role, parent in lineage.parents(version)}
    settings: dict[str, Any] = cleaned(version.manifest, names)
    if version.kind == "validation":
        settings = {}  # they stand with its results
    return Ancestor(registered=registered_entry(version), inputs=dict(sorted(inputs.items())), settings=settings)


def file_entry(data: bytes) -> FileEntry:
    """Size and hash of a file."""
    return FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def library_versions() -> dict[str, str]:
    """The libraries that are installed here."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
