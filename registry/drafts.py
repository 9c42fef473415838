"""What a version is before it is registered: everything checked that needs no database, and its digest."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from contrans.errors import RegistryError
from contrans.hashing import canonical_json, digest
from registry.names import check_kind, check_name, plain_json
from registry.records import NewVersion, Result


@dataclass(frozen=True, kw_only=True, eq=False)  # the digest tells which are equal
class Draft:
    """A version that is checked but not registered: `files` as (SHA-256, size), `inputs` as digests."""

    kind: str
    name: str
    manifest: dict[str, Any]
    files: dict[str, tuple[str, int]]
    inputs: dict[str, str]
    results: tuple[Result, ...]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the content, which makes two versions the same; `results` in any order."""
        return digest(
            {
                "kind": self.kind,
                "name": self.name,
                "manifest": self.manifest,
                "files": {filename: sha256 for filename, (sha256, _) in self.files.items()},
                "inputs": self.inputs,
                "results": sorted((asdict(result) for result in self.results), key=canonical_json),
            }
        )


def check_all(versions: Sequence[NewVersion]) -> list[Draft]:
    """Checks everything that can be checked without the database.

    Args:
        versions: What is to be registered; an input may be another of them.

    Raises:
        RegistryError: If a name, role, manifest, file or result cannot be registered, or an input is a `NewVersion`
            that does not stand before what is made from it.
    """
    found: dict[int, Draft] = {}
    for new in versions:
        found[id(new)] = _draft(new, found)
    return [found[id(new)] for new in versions]


def _draft(new: NewVersion, earlier: Mapping[int, Draft]) -> Draft:
    check_kind(new.kind)
    if new.results and new.kind != "validation":
        raise RegistryError(f"A {new.kind} has no results; register them with a validation.")
    for filename, data in new.files.items():
        if not isinstance(data, bytes):
            raise RegistryError(f"The file {filename!r} is a {type(data).__name__}; give its content as bytes.")
    inputs: dict[str, str] = {}
    for role, parent in new.inputs.items():
        known = earlier.get(id(parent)) if isinstance(parent, NewVersion) else parent
        if known is None:
            raise RegistryError(f"The input {role!r} of {new.name} is new itself; put it before what is made from it.")
        inputs[check_name(role, "role")] = known.digest
    return Draft(
        kind=new.kind,
        name=check_name(new.name),
        manifest=plain_json(new.manifest, "manifest"),
        files={
            check_name(filename, "file name"): (hashlib.sha256(data).hexdigest(), len(data))
            for filename, data in new.files.items()
        },
        inputs=inputs,
        results=tuple(new.results),
    )
