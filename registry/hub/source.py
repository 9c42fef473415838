"""Where the files of a repository come from: the Hub, or its cache on this disk."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from huggingface_hub import try_to_load_from_cache

from contrans.errors import ArtifactError
from contrans.models.cache import remember, remembered
from registry.hub.client import HubError, Patience, api, insist, sentences
from registry.hub.parsing import NewerFormatError

log = logging.getLogger("registry")
T = TypeVar("T")

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DOWNLOADS = 3  # of a file that comes spoilt
_RESOLVE_SECONDS = 20.0


class Source:
    """The files of one repository; `away` tells whether the Hub could not be asked."""

    def __init__(
        self, repo: str, endpoint: str | None, token: str | None, cache_dir: str | Path | None, patience: Patience
    ) -> None:
        self.repo = repo
        self.hub = api(endpoint, token)
        self.cache_dir = cache_dir
        self.patience = patience
        self.away = False

    def resolve(self, revision: str) -> str:
        """The commit that a tag or branch points at."""
        if _COMMIT.fullmatch(revision):
            return revision
        key = ["hub", self.hub.endpoint, self.repo, revision]
        try:
            commit = insist(lambda: self._ask(revision), self.patience)
        except HubError as error:
            known = remembered(key)
            if not (error.unreachable or error.passing) or known is None:
                raise
            log.warning(
                "The Hub cannot be asked; %s@%s is taken from the cache, commit %.12s.", self.repo, revision, known
            )
            self.away = True
            return known
        remember(key, commit)
        return commit

    def checked(self, name: str, commit: str, limit: int, check: Callable[[bytes], T]) -> T:
        """A file that passes a check; one that comes spoilt is fetched anew.

        Args:
            name: the file.
            commit: the commit that it is of.
            limit: bytes that it has at most.
            check: reads it, and raises `ArtifactError` if it is damaged.
        """
        for attempt in range(_DOWNLOADS):
            data = insist(lambda again=attempt > 0: self._read(name, commit, limit, again=again), self.patience)
            try:
                return check(data)
            except ArtifactError as error:
                if self.away or attempt == _DOWNLOADS - 1 or isinstance(error, NewerFormatError):
                    raise
                log.info("%s Fetching it again.", error)
        raise AssertionError("the last attempt returns or raises")

    def _ask(self, revision: str) -> str:
        with sentences(self.repo, "pulling"):
            commit = self.hub.model_info(self.repo, revision=revision, timeout=_RESOLVE_SECONDS).sha
        if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
            raise HubError(f"The Hub gives no commit for {self.repo}@{revision}; check HF_ENDPOINT.")
        return commit

    def _read(self, name: str, commit: str, limit: int, *, again: bool) -> bytes:
        known = try_to_load_from_cache(self.repo, name, cache_dir=self.cache_dir, revision=commit)
        cached = isinstance(known, str)
        with sentences(self.repo, "pulling"):
            if not self.away and (again or not cached):
                self._check_size(name, commit, limit)
            path = Path(
                self.hub.hf_hub_download(
                    self.repo,
                    name,
                    revision=commit,
                    cache_dir=self.cache_dir,
                    force_download=again,
                    local_files_only=self.away,
                )
            )
            with path.open("rb") as file:
                return file.read(limit + 1)

    def _check_size(self, name: str, commit: str, limit: int) -> None:
        there = self.hub.get_paths_info(self.repo, [name], revision=commit)
        size = next((getattr(file, "size", None) for file in there if file.path == name), None)
        if size is None:
            raise HubError(
                f"{self.repo} holds no {name} at {commit[:12]}, so it is no concept that contrans published.",
                absent=True,
            )
        if size > limit:
            raise ArtifactError(
                f"{name} of {self.repo} is {size:,} bytes long, above the {limit:,} due; do not use it."
            )
