"""Publishing a transplant: exactly one commit and one tag, however often it is tried and whatever gets lost.

The Hub's commit is atomic but its answer can be lost, so each round reads first what is there and then does the next
missing thing: nothing if the tag holds this content, else the tag if some commit holds it, else the commit, on top of
the head that was read.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from contrans.errors import ArtifactError
from registry.api import Registry
from registry.hub.bundle import Bundle, bundle
from registry.hub.card import render
from registry.hub.client import HubError, Patience, api, check_repo, current_token, insist
from registry.hub.manifest import CARD, MANIFEST, Manifest
from registry.hub.public import refuse_secrets
from registry.hub.recording import Publication, record
from registry.hub.remote import Remote, State

if TYPE_CHECKING:
    from huggingface_hub import HfApi

log = logging.getLogger("registry")


def publish(
    registry: Registry,
    reference: str,
    repo: str,
    *,
    private: bool = False,
    targets: Sequence[str] = (),
    force: bool = False,
    licence: str | None = None,
    dry_run: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
    patience: Patience = Patience(),  # noqa: B008  it is frozen
) -> Publication:
    """Publishes a transplant, with the vector it was made from, to a repository of the Hub.

    The repository then holds `model.safetensors`, the manifest `contrans.json`, figures and a model card, and the tag
    `v3` for version 3. Publishing the same again changes nothing.

    Args:
        registry: where the transplant is, and where the publication is noted.
        reference: the transplant, such as "anger@production".
        repo: "org/name"; made if it does not exist.
        private: whether a new repository is private; an existing one must be.
        targets: further models whose transplants of the same vector go along; "all" for all there are.
        force: whether to publish without a validation, or below the gate of the alias "production".
        licence: identifier of the Hub; by default the one that all models and texts share, else "other".
        dry_run: whether to check everything and send nothing.
        endpoint: address of the Hub; by default `HF_ENDPOINT` or huggingface.co.
        token: by default that of `HF_TOKEN` or `hf auth login`.
        patience: how often to try again.

    Returns:
        Where it is now, and whether this call put it there.

    Raises:
        RegistryError: it is no transplant, may not be published (see `approval`), or cannot be noted.
        ArtifactError: a file in the registry is damaged.
        HubError: the Hub cannot be reached or refuses; the message says whether anything arrived.
    """
    check_repo(repo)
    made = bundle(registry, reference, targets, force=force)
    hub = api(endpoint, token)
    files = {**made.files, CARD: render(made.manifest, repo, licence=licence).encode()}
    refuse_secrets(files, current_token(hub))
    if dry_run:
        return _publication(made, hub, repo, files, commit=None, created=False)
    remote = Remote(hub, repo)
    insist(lambda: remote.ensure(private=private), patience)
    commit, created = _bring_about(remote, made.manifest, files, patience)
    record(registry, made.versions, repo=repo, commit=commit, tag=made.manifest.tag)
    return _publication(made, hub, repo, files, commit=commit, created=created)


def _bring_about(remote: Remote, manifest: Manifest, files: dict[str, bytes], patience: Patience) -> tuple[str, bool]:
    commit: str | None = None
    sent = False
    failures = 0
    while True:
        try:
            state = remote.state()
            if manifest.tag in state.tags:
                _require_same(remote, state, manifest, files)
                return state.tags[manifest.tag], sent
            commit = commit or remote.find(state, manifest, files)
            if commit is None:
                _refuse_foreign(remote, state, manifest)
                sent = True
                commit = remote.commit(files, manifest, state)
            remote.tag(manifest.tag, commit)
        except HubError as error:
            failures += 1
            if not error.passing or failures >= patience.attempts:
                raise _with_state(error, commit, sent, manifest.tag) from error
            log.info("%s Trying again.", error)
            patience.pause(failures)


def _require_same(remote: Remote, state: State, manifest: Manifest, files: dict[str, bytes]) -> None:
    if not remote.holds(state.tags[manifest.tag], manifest, files):
        raise HubError(
            f"{remote.repo} already has a tag {manifest.tag} with other content: another transplant, other targets or "
            "another validation. A tag never moves; register a new version, or publish to another repository."
        )


def _refuse_foreign(remote: Remote, state: State, manifest: Manifest) -> None:
    there = remote.manifest(state.head)
    if isinstance(there, ArtifactError):
        raise HubError(f"{remote.repo} holds a {MANIFEST} that cannot be read: {there} Publish to another repository.")
    if there is None and (others := remote.others(state.head)):
        raise HubError(
            f"{remote.repo} holds other files, such as {others[0]}; publish to a repository of its own for the concept."
        )
    if there is not None and there.registered.name != manifest.registered.name:
        raise HubError(
            f"{remote.repo} holds versions of {there.registered.name}, and its tags count those; publish "
            f"{manifest.registered.name} to a repository of its own, or along with the other by --targets."
        )


def _with_state(error: HubError, commit: str | None, sent: bool, tag: str) -> HubError:
    if commit is not None:
        said = f"The files are there as commit {commit[:12]}, but the tag {tag} is not set; publish again to finish."
    elif sent:
        said = "Whether the files arrived is not known; publish again to finish, nothing is done twice."
    else:
        said = "Nothing was published."
    return HubError(f"{error} {said}", passing=error.passing, unreachable=error.unreachable, absent=error.absent)


def _publication(
    made: Bundle, hub: "HfApi", repo: str, files: dict[str, bytes], *, commit: str | None, created: bool
) -> Publication:
    return Publication(
        version=made.manifest.registered.ref,
        repo=repo,
        tag=made.manifest.tag,
        commit=commit,
        url=f"{hub.endpoint}/{repo}/tree/{made.manifest.tag}",
        content=made.manifest.content,
        files={path: len(data) for path, data in sorted(files.items())},
        created=created,
    )
