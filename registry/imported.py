"""Registering directions that another tool made: a vector of the registry like our own, which says where it is from."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from contrans.errors import ArtifactError, RegistryError
from contrans.hashing import digest
from registry.api import Registry
from registry.names import check_name
from registry.records import Version

if TYPE_CHECKING:
    from contrans.concepts import ConceptVector, ContrastSet
    from contrans.exchange.formats import Content
    from contrans.models import Model
    from registry.hub.source import Source

_PLACE = re.compile(r"(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w./-]{1,200}))?")


@dataclass(frozen=True)
class Imported:
    """A vector from another tool.

    Attributes:
        version: the version that it was registered as.
        vector: the vector, checked against the model.
        origin: format, tool, file, SHA-256, and the repository and commit where it came from the Hub.
    """

    version: Version
    vector: "ConceptVector"
    origin: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """Gives what was imported, without the directions, as plain JSON."""
        return {
            "concept": self.vector.concept,
            "model": self.vector.model.to_json(),
            "blocks": self.vector.blocks,
            "origin": dict(self.origin),
            "registered": self.version.as_json(),
        }


def import_vector(
    registry: Registry,
    place: str | Path,
    *,
    format: str,
    model: "Model",
    concept: str,
    name: str | None = None,
    file: str | None = None,
    blocks: Iterable[int] = (),
    measured_on: "ContrastSet | Sequence[str] | None" = None,
    allow_mismatch: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
) -> Imported:
    """Reads a vector that another tool made, checks that it fits a model, and registers it with its origin.

    Importing the same file again finds the same version.

    Args:
        registry: where to.
        place: a file, a folder (EasyEdit2's), or "org/repo" or "org/repo@revision" of the Hub.
        format: one of `contrans.exchange.READABLE`.
        model: the loaded model that it is of.
        concept: its name here.
        name: of the version; by default "CONCEPT/MODEL/FORMAT", so that it does not count on with our own.
        file: the file (of EasyEdit2 the folder) in the repository; needed if `place` is one.
        blocks: only these blocks; all if empty.
        measured_on: see `contrans.exchange.concept_vector_of`; by default 200 passages of the shipped corpus.
        allow_mismatch: whether a file for another kind of model of the same size, or for other weights, will do.
        endpoint: address of the Hub; by default `HF_ENDPOINT` or huggingface.co.
        token: by default that of `HF_TOKEN` or `hf auth login`.

    Raises:
        ArtifactError: it cannot be read, is damaged or a pickle, or is not the model's.
        BlockError: a block was named that it does not have.
        HubError: the Hub cannot be reached, or does not hold it.
        SpecError: an unknown format.
        RegistryError: the name is not valid, or it cannot be registered.
    """
    from contrans.exchange.formats import FORMATS, format_named, parse_foreign
    from contrans.exchange.importing import concept_vector_of
    from contrans.maps import corpus

    format_named(format, to="import")
    check_name(concept, "concept")
    content, what, origin = _fetched(place, format, file, endpoint, token)
    found = parse_foreign(content, format, what=what).only(blocks)
    origin = {"format": format, "tool": FORMATS[format].tool, "sha256": _sha256(content), **origin}
    vector = concept_vector_of(
        found,
        model,
        concept=concept,
        measured_on=corpus("passages").take(200).texts if measured_on is None else measured_on,
        origin=origin,
        what=what,
        allow_mismatch=allow_mismatch,
    )
    record = vector.model
    block = {"block": vector.best_block()} if vector.diagnostics else {}
    version = registry.register(
        "vector",
        name or f"{concept}/{record.name}/{format}",
        manifest={"concept": concept, "estimator": format, "origin": origin, **block},
        files=vector.to_files(),
        inputs={"model": registry.register("model", record.name, manifest=record.to_json())},
    )
    return Imported(version, vector, origin)


def _fetched(
    place: str | Path, format: str, file: str | None, endpoint: str | None, token: str | None
) -> "tuple[Content, str, dict[str, str]]":
    """The content, its name for messages, and where it is from; the path on this disk is nobody else's business."""
    from contrans.exchange.formats import read_foreign

    path = Path(place).expanduser()
    if path.exists():
        return read_foreign(path, format)[1], path.name, {"file": path.name}
    match = _PLACE.fullmatch(str(place).removeprefix("hf://"))
    if match is None or isinstance(place, Path):
        raise ArtifactError(f"{place} does not exist; give a file, a folder, or ORG/REPO of the Hub with --file.")
    if file is None:
        raise RegistryError(
            f"{place} is no file here; if it is a repository of the Hub, say which of its files with --file."
        )
    return _of_the_hub(match["repo"], match["revision"] or "main", format, file, endpoint, token)


def _of_the_hub(
    repo: str, revision: str, format: str, file: str, endpoint: str | None, token: str | None
) -> "tuple[Content, str, dict[str, str]]":
    from contrans.exchange.formats import format_named
    from registry.hub.client import Patience
    from registry.hub.source import Source

    clean = PurePosixPath(file)
    if clean.is_absolute() or ".." in clean.parts:
        raise RegistryError(f"{file!r} is no path in a repository; give one such as vectors/anger.gguf.")
    source = Source(repo, endpoint, token, None, Patience(attempts=4))
    commit = source.resolve(revision)
    what = f"{repo}/{clean}"
    is_folder = format_named(format, to="import").is_folder
    read = _folder_of if is_folder else _file_of
    return read(source, commit, clean, format, what), what, {"file": str(clean), "repo": repo, "commit": commit}


def _file_of(source: "Source", commit: str, path: PurePosixPath, format: str, what: str) -> bytes:
    from contrans.exchange.foreign import MAX_BYTES
    from contrans.exchange.formats import parse_foreign
    from registry.hub.client import HubError

    def check(data: bytes) -> bytes:
        parse_foreign(data, format, what=what)
        return data

    try:
        return source.checked(str(path), commit, MAX_BYTES, check)
    except HubError as error:
        if not error.absent:
            raise
        raise HubError(
            f"{source.repo} holds no file {path} at {commit[:12]}; look at its files on the Hub and name one with "
            f"--file.",
            absent=True,
        ) from error


def _folder_of(source: "Source", commit: str, path: PurePosixPath, format: str, what: str) -> dict[str, bytes]:
    """The `layer_N.pt` files of a folder, each of which is looked at by itself before the next one is fetched."""
    from contrans.exchange.foreign import MAX_BLOCKS, MAX_BYTES
    from contrans.exchange.formats import parse_foreign
    from registry.hub.client import insist, sentences

    def listed() -> list[str]:
        with sentences(source.repo, "pulling"):
            return [file.rfilename for file in source.hub.model_info(source.repo, revision=commit).siblings or ()]

    places = map(PurePosixPath, insist(listed, source.patience))
    names = sorted(p.name for p in places if p.parent == path and p.match("layer_*.pt"))
    found: dict[str, bytes] = {}
    for name in names[:MAX_BLOCKS]:

        def check(data: bytes, name: str = name) -> bytes:
            parse_foreign({name: data}, format, what=what)
            return data

        found[name] = source.checked(str(path / name), commit, MAX_BYTES - sum(map(len, found.values())), check)
    parse_foreign(found, format, what=what)
    return found


def _sha256(content: "Content") -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return digest({name: hashlib.sha256(data).hexdigest() for name, data in content.items()})
