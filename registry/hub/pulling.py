"""Pulling a published concept: pinned to a commit, every hash checked, from the cache where the Hub is away."""

import os
import re
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.api import Registry
from registry.hub.client import HubError, Patience, check_repo
from registry.hub.manifest import MANIFEST, MAX_MANIFEST, TENSORS, Manifest, VectorEntry
from registry.hub.origin import register
from registry.hub.parsing import read_manifest
from registry.hub.selection import choose, for_model
from registry.hub.source import Source
from registry.hub.tensors import check_size, read_tensors, vector_of
from registry.records import Version

if TYPE_CHECKING:
    from contrans.concepts import ConceptVector
    from contrans.models import Model


_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


@dataclass(frozen=True)
class Pulled:
    """A vector from the Hub.

    Attributes:
        vector: the vector, checked.
        repo: the repository.
        revision: what was asked for: a tag, branch or commit.
        commit: the commit that it is of.
        entry: what was published of the vector.
        manifest: what was published in all.
        cached: whether the Hub could not be asked, so that the commit is the one known from before.
        version: the version that it was registered as, or None.
    """

    vector: "ConceptVector"
    repo: str
    revision: str
    commit: str
    entry: VectorEntry = field(repr=False)
    manifest: Manifest = field(repr=False)
    cached: bool
    version: Version | None

    def as_json(self) -> dict[str, Any]:
        """Gives what was pulled, without the directions, as plain JSON."""
        return {
            "repo": self.repo,
            "revision": self.revision,
            "commit": self.commit,
            "tag": self.manifest.tag,
            "cached": self.cached,
            "concept": self.vector.concept,
            "model": self.vector.model.to_json(),
            "blocks": self.vector.blocks,
            "dose": self.entry.dose,
            "published_as": self.entry.registered.ref,
            "registered": None if self.version is None else self.version.as_json(),
        }


def pull(
    reference: str,
    *,
    target: "Model | str | Path | None" = None,
    allow_mismatch: bool = False,
    registry: Registry | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> "ConceptVector":
    """Pulls a published concept vector from the Hub; see `fetch`, which tells more.

    Args:
        reference: "org/repo", "org/repo@v3" or "org/repo@COMMIT".
        target: the model to put it into, loaded or by reference; None for the vector of the source model.
        allow_mismatch: whether a transplant for other weights of the target will do.
        registry: where it is registered with its origin; by default the user's own.
        endpoint: address of the Hub; by default `HF_ENDPOINT` or huggingface.co.
        token: by default that of `HF_TOKEN` or `hf auth login`.
    """
    own = nullcontext(registry) if registry else Registry.open(os.environ.get("CONTRANS_REGISTRY") or None)
    with own as into:
        return fetch(
            reference, target=target, allow_mismatch=allow_mismatch, registry=into, endpoint=endpoint, token=token
        ).vector


def fetch(
    reference: str,
    *,
    target: "Model | str | Path | None" = None,
    allow_mismatch: bool = False,
    registry: Registry | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    patience: Patience = Patience(attempts=4),  # noqa: B008  it is frozen
) -> Pulled:
    """Pulls a published concept vector from the Hub.

    Only the manifest and `model.safetensors` are fetched, into the cache of `huggingface_hub`; from there they are
    read when they are needed again, or when the Hub is away. They are checked each time.

    Args:
        reference: "org/repo", "org/repo@v3" or "org/repo@COMMIT".
        target: the model to put it into, loaded or by reference; None for the vector of the source model.
        allow_mismatch: whether a transplant for other weights of the target will do.
        registry: where it is registered with its origin; None to register it nowhere.
        endpoint: address of the Hub; by default `HF_ENDPOINT` or huggingface.co.
        token: by default that of `HF_TOKEN` or `hf auth login`.
        cache_dir: by default that of `huggingface_hub`.
        patience: how often to try again.

    Raises:
        ArtifactError: what is there is damaged, altered, of a newer format, or not for this model; the message of a
            model without a transplant says how to fit the map.
        HubError: the Hub cannot be reached, or does not hold it.
        RegistryError: it cannot be registered.
    """
    repo, revision = _parsed(reference)
    source = Source(repo, endpoint, token, cache_dir, patience)
    commit = source.resolve(revision)
    what = f"{repo}@{revision}"
    raw, manifest = source.checked(MANIFEST, commit, MAX_MANIFEST, lambda data: (data, read_manifest(data, what=what)))
    entry = choose(manifest, target, allow_mismatch=allow_mismatch, what=what)
    check_size(manifest, what=what)
    size = manifest.files[TENSORS].size
    tensors = source.checked(TENSORS, commit, size, lambda data: read_tensors(data, manifest, what=what))
    vector = vector_of(entry, manifest.concept, tensors)
    version = None
    if registry is not None:
        version = register(registry, manifest, raw, entry, tensors, repo=repo, commit=commit)
    return Pulled(for_model(vector, target, what=what), repo, revision, commit, entry, manifest, source.away, version)


def _parsed(reference: str) -> tuple[str, str]:
    repo, at, revision = reference.strip().removeprefix("hf://").partition("@")
    check_repo(repo)
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise HubError(f"{revision[:80]!r} is no tag, branch or commit; give one such as {repo}@v1.")
    return repo, revision if at else "main"
