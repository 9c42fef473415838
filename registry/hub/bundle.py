"""From a version of the registry to the files of a repository, checked before a byte leaves."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from contrans.concepts import ConceptVector
from contrans.errors import RegistryError
from registry.api import Registry
from registry.hub import approval
from registry.hub.entries import (
    ancestor_entry,
    figures_of,
    file_entry,
    library_versions,
    registered_entry,
    split_entries,
    validation_entry,
    vector_entry,
)
from registry.hub.exports import exports_of
from registry.hub.manifest import MANIFEST, MAX_MANIFEST, TENSORS, Manifest
from registry.hub.parsing import read_manifest
from registry.hub.public import local_names
from registry.hub.tensors import pack, read_tensors
from registry.names import listed
from registry.records import Version

_VECTOR_FILES = ("concept_vector.safetensors", "concept_vector.json")


@dataclass(frozen=True)
class Bundle:
    """What a repository is to hold, but for its card.

    Attributes:
        manifest: the manifest.
        files: contents by path, `contrans.json` among them.
        versions: the transplants in it, the one that gives the tag first.
    """

    manifest: Manifest
    files: dict[str, bytes]
    versions: tuple[Version, ...]


def bundle(registry: Registry, reference: str, targets: Sequence[str] = (), *, force: bool = False) -> Bundle:
    """Puts together what is published of a transplant.

    Args:
        registry: where it is.
        reference: the transplant, such as "anger@production".
        targets: further models, by name or reference, whose transplants of the same vector go along; "all" for all.
        force: whether a transplant without a validation, or below the gate, will do.

    Raises:
        RegistryError: it is no transplant of a vector, may not be published, or cannot be read.
        ArtifactError: a file of it is damaged.
    """
    main = registry.get(reference, "transplant")
    above = registry.lineage(main, "up", depth=1)
    vector = dict(above.parents(main)).get("vector")
    if vector is None:
        raise RegistryError(f"{main} does not say which vector it was made from, so it cannot be published.")
    transplants = [main, *_further(registry, vector, main, targets)]
    for transplant in transplants if not force else ():
        approval.require(registry, transplant)
    checks = {t.id: sorted(registry.validations(t), key=lambda v: v.name) for t in transplants}
    lineages = [registry.lineage(v, "up") for t in transplants for v in (t, *checks[t.id])]
    every = {v.id: v for lineage in lineages for v in lineage.versions}
    names = local_names(v.manifest for v in every.values() if v.kind == "model" and "name" in v.manifest)

    loaded = {v.id: _load(registry, v) for v in (vector, *transplants)}
    _refuse_same_names(loaded[t.id].model.name for t in transplants)
    stems = {vector.id: "source", **{t.id: f"target.{loaded[t.id].model.name}" for t in transplants}}
    contents = {TENSORS: pack({stems[i]: loaded[i] for i in stems})}
    figures = {
        check.id: figures_of(registry, check, t, loaded[t.id].model.name) for t in transplants for check in checks[t.id]
    }
    for found in figures.values():
        contents |= found
    entries = [vector_entry(t, loaded[t.id], names) for t in transplants]
    for entry, t in zip(entries, transplants, strict=True):
        contents |= exports_of(entry, loaded[t.id])
    try:
        manifest = Manifest.sealed(
            concept=loaded[main.id].concept,
            description=registry.concepts().get(loaded[main.id].concept, (None, None))[1],
            registered=registered_entry(main),
            source=vector_entry(vector, loaded[vector.id], names),
            transplants=entries,
            validations=[
                validation_entry(registry, check, t, sorted(figures[check.id]), names)
                for t in transplants
                for check in checks[t.id]
            ],
            splits=split_entries(lineages, names),
            lineage=[ancestor_entry(v, lineages, names) for v in sorted(every.values(), key=lambda v: v.id)],
            files={path: file_entry(data) for path, data in sorted(contents.items())},
            library_versions=library_versions(),
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RegistryError(
            f"{main.ref} cannot be published: {where} in its manifest is not as it is due ({first['msg']})."
        ) from error
    made = manifest.to_bytes()
    if len(made) > MAX_MANIFEST:
        raise RegistryError(
            f"The manifest of {main.ref} would be {len(made):,} bytes long, above the {MAX_MANIFEST:,} that are read; "
            "publish fewer targets."
        )
    # What would be refused when it is pulled is refused here.
    again = read_manifest(made, what=main.ref)
    read_tensors(contents[TENSORS], again, what=main.ref)
    return Bundle(again, {MANIFEST: made, **contents}, tuple(transplants))


def _further(registry: Registry, vector: Version, main: Version, targets: Sequence[str]) -> list[Version]:
    newest: dict[str, Version] = {}
    for role, child in registry.lineage(vector, "down", depth=1).children(vector):
        if role == "vector" and child.kind == "transplant" and child.name != main.name:
            known = newest.get(child.name)
            newest[child.name] = child if known is None or child.number > known.number else known
    if list(targets) == ["all"]:
        return [newest[name] for name in sorted(newest)]
    by_model: dict[str, Version] = {}
    for transplant in newest.values():
        target = dict(registry.lineage(transplant, "up", depth=1).parents(transplant)).get("target")
        for key in (transplant.name, *((target.name, str(target.manifest.get("reference"))) if target else ())):
            by_model[key] = transplant
    unknown = [target for target in targets if target not in by_model]
    if unknown:
        there = listed(sorted(newest)) or "none"
        raise RegistryError(
            f"{vector.ref} has no other transplant for {listed(unknown)}; it has {there}. Name a target model or "
            "such a transplant, or run the pipeline with that target first."
        )
    return list({by_model[target].id: by_model[target] for target in targets}.values())


def _refuse_same_names(names: Iterable[str]) -> None:
    found = list(names)
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise RegistryError(f"Several transplants are for a model called {listed(twice)}; publish one of them.")


def _load(registry: Registry, transplant: Version) -> ConceptVector:
    missing = [name for name in _VECTOR_FILES if name not in registry.files(transplant)]
    if missing:
        raise RegistryError(f"{transplant} has no file {missing[0]}, so there is nothing to publish.")
    return ConceptVector.from_files({name: registry.read(transplant, name) for name in _VECTOR_FILES})
