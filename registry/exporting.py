"""From a version of the registry to what other tools are to add: vector, block and validated dose."""

import math
from typing import TYPE_CHECKING

from contrans.errors import RegistryError
from registry.reading import Reading
from registry.records import Version

if TYPE_CHECKING:
    from contrans.concepts import ConceptVector
    from contrans.exchange import Shift

_FILES = ("concept_vector.safetensors", "concept_vector.json")


def vector_of_version(registry: Reading, version: Version | str) -> "tuple[Version, ConceptVector]":
    """The vector of a transplant or vector of the registry.

    Raises:
        RegistryError: there is none of this name, or it is of another kind.
        ArtifactError: its files are damaged.
    """
    from contrans.concepts import ConceptVector

    found = registry.get(version) if isinstance(version, str) else version
    if found.kind not in ("transplant", "vector"):
        raise RegistryError(f"{found} is no transplant or vector, so there is nothing to export; name one of these.")
    missing = [name for name in _FILES if name not in registry.files(found)]
    if missing:
        raise RegistryError(f"{found} has no file {missing[0]}, so there is nothing to export.")
    return found, ConceptVector.from_files({name: registry.read(found, name) for name in _FILES})


def dose_of(registry: Reading, version: Version) -> float | None:
    """The dose that a version is meant for: its own, else that of the newest validation that judges it."""
    doses = [version.manifest.get("dose")]
    for check in sorted(registry.validations(version), key=lambda v: -v.id):
        found = check.manifest.get("doses")
        doses.append(found.get("transplanted") if isinstance(found, dict) else None)
    usable = [d for d in doses if isinstance(d, int | float) and not isinstance(d, bool) and math.isfinite(d) and d]
    return float(usable[0]) if usable else None


def shift_of_version(
    registry: Reading, version: Version | str, *, dose: float | None = None, block: int | None = None
) -> "Shift":
    """What other tools are to add for a version of the registry.

    Args:
        registry: where it is.
        version: a transplant, or a vector of the model itself.
        dose: in residual norms; by default the one that it was validated at.
        block: by default the one that it was made for.

    Raises:
        RegistryError: it is of another kind, or names no dose and none is given.
        SpecError, BlockError: as for `contrans.exchange.exported_shift`.
    """
    from contrans.exchange import exported_shift

    found, vector = vector_of_version(registry, version)
    settings = found.manifest
    at = block if block is not None else settings.get("block")
    size = dose if dose is not None else dose_of(registry, found)
    if size is None:
        raise RegistryError(f"{found} was not validated at any dose; say how much of it goes in with --dose.")
    return exported_shift(
        vector,
        dose=size,
        block=at if isinstance(at, int) else None,
        operation=str(settings.get("operation", "add")),
        positions=str(settings.get("positions", "all")),
        origin=found.ref,
    )
