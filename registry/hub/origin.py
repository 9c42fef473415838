"""Registering what was pulled: versions of one's own registry that say where they came from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from registry.api import Registry
from registry.hub.manifest import MANIFEST, Manifest, VectorEntry
from registry.hub.tensors import vector_of
from registry.records import Result, Version

if TYPE_CHECKING:
    import torch


def register(
    registry: Registry,
    manifest: Manifest,
    raw: bytes,
    entry: VectorEntry,
    tensors: "Mapping[str, torch.Tensor]",
    *,
    repo: str,
    commit: str,
) -> Version:
    """Registers a pulled vector, for a transplant with the source's vector and its validations.

    Their names begin with the repository's, so that they do not count on with versions made here; the manifest goes
    along as a file. Pulling the same commit again finds the same versions.

    Args:
        registry: where to.
        manifest: what was published.
        raw: the manifest's file.
        entry: the vector that was chosen.
        tensors: the tensors by name.
        repo: where from.
        commit: its commit.

    Returns:
        The version of the vector that was chosen.
    """
    origin = {"repo": repo, "commit": commit, "tag": manifest.tag, "content": manifest.content}

    def add(kind: str, part: VectorEntry, more: Mapping[str, Any], inputs: Mapping[str, Version]) -> Version:
        return registry.register(
            kind,
            f"{repo}/{part.model.name}",
            manifest={"concept": manifest.concept, "origin": {**origin, **_published(part)}, **more},
            files={**vector_of(part, manifest.concept, tensors).to_files(), MANIFEST: raw},
            inputs=inputs,
        )

    estimator = manifest.source.provenance.get("estimator")
    vector = add(
        "vector",
        manifest.source,
        {"estimator": estimator} if isinstance(estimator, str) else {},
        {"model": _model(registry, manifest.source)},
    )
    if entry is manifest.source:
        return vector
    chosen = {key: value for key, value in (("block", entry.block), ("dose", entry.dose)) if value is not None}
    inputs = {"vector": vector, "target": _model(registry, entry)}
    transplant = add("transplant", entry, chosen, inputs)
    for validation in manifest.validations:
        if validation.of == entry.registered.ref:
            registry.register(
                "validation",
                f"{repo}/{entry.model.name}/{validation.registered.name.rpartition('/')[2]}",
                manifest={
                    "protocol": validation.protocol,
                    "split": "test",
                    "concept": manifest.concept,
                    "settings": validation.settings,
                    "origin": {**origin, "version": validation.registered.ref},
                },
                inputs={"transplant": transplant},
                results=[Result(**result.model_dump()) for result in validation.results],
            )
    return transplant


def _published(part: VectorEntry) -> dict[str, str]:
    return {"version": part.registered.ref, "digest": part.registered.digest}


def _model(registry: Registry, part: VectorEntry) -> Version:
    return registry.register("model", part.model.name, manifest=part.model.record().to_json())
