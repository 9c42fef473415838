"""A repository of a published concept as it stands on the Hub: its tags, its commits, what they hold."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile

from contrans.errors import ArtifactError
from registry.hub.client import HubError, sentences
from registry.hub.manifest import MANIFEST, MAX_MANIFEST, Manifest
from registry.hub.parsing import read_manifest

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_MAIN = "main"
_OF_A_NEW_ONE = (".gitattributes", "README.md", "LICENSE", "LICENSE.md")


@dataclass(frozen=True)
class State:
    """Head of the main branch, and the commits that tags point at."""

    head: str
    tags: Mapping[str, str]


class Remote:
    """One repository, through one client; every method raises `HubError` where the Hub does not do as asked."""

    def __init__(self, hub: "HfApi", repo: str) -> None:
        self.hub = hub
        self.repo = repo
        self._manifests: dict[str, Manifest | ArtifactError | None] = {}

    @property
    def url(self) -> str:
        """The page of the repository."""
        return f"{self.hub.endpoint}/{self.repo}"

    def ensure(self, *, private: bool) -> None:
        """Makes the repository unless it exists.

        Raises:
            HubError: it cannot be made, or it is public and is wanted private.
        """
        with sentences(self.repo, "publishing"):
            self.hub.create_repo(self.repo, private=private, exist_ok=True)
            is_private = bool(self.hub.model_info(self.repo).private)
        if private and not is_private:
            raise HubError(
                f"{self.repo} exists and is public; make it private on its page first, or leave --private out."
            )

    def state(self) -> State:
        """Where main and the tags are now."""
        with sentences(self.repo, "publishing"):
            refs = self.hub.list_repo_refs(self.repo)
        head = next((branch.target_commit for branch in refs.branches if branch.name == _MAIN), None)
        if head is None:
            raise HubError(f"{self.repo} has no branch main; make one on its page, or publish to another repository.")
        return State(head, {tag.name: tag.target_commit for tag in refs.tags})

    def manifest(self, commit: str) -> Manifest | ArtifactError | None:
        """The manifest of a commit, what is wrong with the file of that name, or None where there is none."""
        if commit not in self._manifests:
            self._manifests[commit] = self._read(commit)
        return self._manifests[commit]

    def holds(self, commit: str, manifest: Manifest, files: Mapping[str, bytes]) -> bool:
        """Whether a commit holds this content: an equal manifest and every file that it lists, by hash."""
        there = self.manifest(commit)
        if not isinstance(there, Manifest) or there.content != manifest.content:
            return False
        found = self._listed(list(manifest.files), commit)
        return all(path in found and _is(found[path], files[path]) for path in manifest.files)

    def find(self, state: State, manifest: Manifest, files: Mapping[str, bytes]) -> str | None:
        """The commit that put this content there, if any: of a call whose answer was lost, or that was killed."""
        with sentences(self.repo, "publishing"):
            commits = self.hub.list_repo_commits(self.repo)
        marked = [c.commit_id for c in commits if _mark(manifest) in f"{c.title}\n{c.message}"]
        return next((commit for commit in (*marked, state.head) if self.holds(commit, manifest, files)), None)

    def others(self, commit: str) -> list[str]:
        """Files of a commit that are none of a new repository's, such as the weights of a model."""
        with sentences(self.repo, "publishing"):
            there = self.hub.model_info(self.repo, revision=commit).siblings or []
        return [file.rfilename for file in there if file.rfilename not in _OF_A_NEW_ONE]

    def commit(self, files: Mapping[str, bytes], manifest: Manifest, state: State) -> str:
        """Puts all files there in one commit on top of `state.head`, and nothing if main has moved on."""
        before = self.manifest(state.head)
        gone = {MANIFEST, *before.files} - files.keys() if isinstance(before, Manifest) else set()
        with sentences(self.repo, "publishing"):
            made = self.hub.create_commit(
                self.repo,
                [CommitOperationAdd(path, data) for path, data in sorted(files.items())]
                + [CommitOperationDelete(path) for path in sorted(gone)],
                commit_message=f"{manifest.registered.ref} ({_mark(manifest)})",
                parent_commit=state.head,
            )
        return made.oid

    def tag(self, name: str, commit: str) -> None:
        """Sets a tag that is not there yet."""
        with sentences(self.repo, "publishing"):
            self.hub.create_tag(self.repo, tag=name, revision=commit)

    def _read(self, commit: str) -> Manifest | ArtifactError | None:
        file = self._listed([MANIFEST], commit).get(MANIFEST)
        if file is None:
            return None
        if file.size > MAX_MANIFEST:
            return ArtifactError(f"{MANIFEST} of {self.repo} is too large to be a manifest of contrans.")
        with sentences(self.repo, "publishing"):
            path = self.hub.hf_hub_download(self.repo, MANIFEST, revision=commit)
            data = Path(path).read_bytes()
            if not _is(file, data):  # cut short or spoilt on its way, or in the cache
                data = Path(
                    self.hub.hf_hub_download(self.repo, MANIFEST, revision=commit, force_download=True)
                ).read_bytes()
        if not _is(file, data):
            raise HubError(f"{MANIFEST} of {self.repo} was spoilt on its way; try again.", passing=True)
        try:
            return read_manifest(data, what=self.repo)
        except ArtifactError as error:
            return error

    def _listed(self, paths: list[str], commit: str) -> dict[str, RepoFile]:
        with sentences(self.repo, "publishing"):
            found = self.hub.get_paths_info(self.repo, paths, revision=commit)
        return {file.path: file for file in found if isinstance(file, RepoFile)}


def _mark(manifest: Manifest) -> str:
    # In the commit's title, by which the commit is found again.
    return f"content {manifest.content[:24]}"


def _is(file: RepoFile, data: bytes) -> bool:
    if file.lfs is not None:
        return (file.lfs.size, file.lfs.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return (file.size, file.blob_id) == (len(data), blob)
