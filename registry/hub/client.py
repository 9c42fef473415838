"""The Hub as publishing and pulling see it: a few calls, and errors that say what to do and whether to try again."""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, get_token, set_client_factory
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils._http import default_client_factory

from contrans.errors import RegistryError

log = logging.getLogger("registry")
T = TypeVar("T")

_AGAIN = (408, 425, 429)
_CONFLICTS = (409, 412)
_LONGEST_WAIT = 30.0
_CALL_SECONDS = 120.0


class HubError(RegistryError):
    """The Hub cannot be reached, refuses what is asked for, or does not hold it.

    Attributes:
        passing: whether it may work when tried again: no answer, a server's error, or somebody else was faster.
        unreachable: whether the Hub could not be reached at all.
        absent: whether the repository, revision or file is not there.
    """

    def __init__(self, message: str, *, passing: bool = False, unreachable: bool = False, absent: bool = False) -> None:
        super().__init__(message)
        self.passing = passing
        self.unreachable = unreachable
        self.absent = absent


@dataclass(frozen=True)
class Patience:
    """How often and how long a call that may pass is tried.

    Attributes:
        attempts: failures in a row after which one gives up.
        wait: seconds before the second attempt; doubled each time, up to half a minute.
    """

    attempts: int = 6
    wait: float = 1.0

    def pause(self, failures: int) -> None:
        """Waits before the next attempt, at random so that two publishers do not stay in step."""
        time.sleep(min(_LONGEST_WAIT, self.wait * 2 ** (failures - 1)) * random.uniform(0.5, 1.0))


def api(endpoint: str | None = None, token: str | None = None) -> HfApi:
    """The client of `huggingface_hub`; without a token the one of `HF_TOKEN` or `hf auth login` is used."""
    return HfApi(endpoint=endpoint, token=token, library_name="contrans")


def current_token(hub: HfApi) -> str | None:
    """The token that a client sends, if any; only to make sure that it goes nowhere else."""
    return hub.token if isinstance(hub.token, str) else get_token()


def limit_waiting(seconds: float = _CALL_SECONDS) -> None:
    """Makes every call of `huggingface_hub` in this process give up on a server that falls silent.

    By itself it waits for ever. This changes the whole process, so only a program calls it, never the library.
    """

    def client() -> httpx2.Client:
        made = default_client_factory()
        made.timeout = httpx2.Timeout(seconds, connect=min(10.0, seconds))
        return made

    set_client_factory(client)


def check_repo(repo: str) -> str:
    """Gives back a repository's id, "org/name".

    Raises:
        HubError: it is none.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError:
        repo = ""
    if repo.count("/") != 1:
        raise HubError(
            "A repository is named org/name, in letters, digits, '-', '_' and '.', such as my-org/concept-anger."
        )
    return repo


@contextmanager
def sentences(repo: str, doing: str) -> Iterator[None]:
    """Turns what a call of `huggingface_hub` raises into a `HubError`.

    Args:
        repo: the repository that the call is about.
        doing: what is being done, such as "publishing", for the message.
    """
    try:
        yield
    except (HfHubHTTPError, httpx2.HTTPError, FileMetadataError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise _explained(error, repo, doing) from error


def insist(call: Callable[[], T], patience: Patience) -> T:
    """Makes a call that changes nothing until it works, fails for good, or patience is at its end.

    Raises:
        HubError: see there.
    """
    failures = 0
    while True:
        try:
            return call()
        except HubError as error:
            failures += 1
            if not error.passing or failures >= patience.attempts:
                raise
            log.info("%s Trying again.", error)
            patience.pause(failures)


def _explained(error: Exception, repo: str, doing: str) -> HubError:
    # Uploads wrap what went wrong; what matters is the answer, or that there was none.
    causes = list(_chain(error))
    status = next((c.response.status_code for c in causes if isinstance(c, HfHubHTTPError)), None)
    if _any(causes, GatedRepoError):
        return HubError(f"{repo} is gated: accept its terms on its page, then log in with `hf auth login`.")
    if status == 401 and not _any(causes, RepositoryNotFoundError):
        return HubError("The Hub does not accept your token; log in again with `hf auth login`, or set HF_TOKEN.")
    if status == 403:
        return HubError(f"Your token may not do this with {repo} ({doing}); use one with the right to write there.")
    if _any(causes, RepositoryNotFoundError):
        return HubError(
            f"{repo} is not on the Hub, or is private; check its name, or log in with `hf auth login`.", absent=True
        )
    if _any(causes, RevisionNotFoundError):
        return HubError(f"{repo} has no such tag, branch or commit; its page lists them.", absent=True)
    if _any(causes, RemoteEntryNotFoundError):
        return HubError(f"{repo} does not hold the file that is needed for {doing}.", absent=True)
    if status in _CONFLICTS:
        return HubError(f"{repo} was changed by somebody else while {doing}; try again.", passing=True)
    if status in _AGAIN or (status is not None and status >= 500):
        return HubError(f"The Hub answered {doing} of {repo} with error {status}; try again later.", passing=True)
    if _any(causes, OfflineModeIsEnabled):
        return HubError(
            f"{doing.capitalize()} of {repo} needs the Hub, but HF_HUB_OFFLINE is set; take it away.", unreachable=True
        )
    if _any(causes, httpx2.TransportError, LocalEntryNotFoundError, ConnectionError):
        return HubError(
            f"The Hub gave no answer to {doing} of {repo}; check the network and try again.",
            passing=True,
            unreachable=_any(causes, httpx2.ConnectError, httpx2.TimeoutException, LocalEntryNotFoundError),
        )
    if "Consistency check failed" in str(error):
        return HubError(f"A download from {repo} was cut short; try again.", passing=True)
    if isinstance(error, OSError) and not isinstance(error, HfHubHTTPError):
        return HubError(
            f"A file of {repo} cannot be kept ({error.strerror or error}); free space, or set HF_HOME elsewhere."
        )
    return HubError(f"The Hub refused {doing} of {repo}: {_first(error)}.")


def _any(causes: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0].strip().rstrip(".:")[:200] if lines else type(error).__name__
