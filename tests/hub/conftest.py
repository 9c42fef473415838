"""A Hub on loopback, the real client, and a registry with a concept to publish."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session, disable_progress_bars

from registry import Registry
from registry.hub.client import Patience
from tests.hub import server
from tests.hub.concepts import Made, fill

QUICK = Patience(attempts=6, wait=0.002)


@pytest.fixture(scope="session")
def running_hub() -> Iterator[server.Hub]:
    with server.running() as hub:
        yield hub


@pytest.fixture
def hub(running_hub: server.Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[server.Hub]:
    """An empty Hub, to which the client of `huggingface_hub` goes with its own cache and a token that may write."""
    running_hub.repos.clear()
    running_hub.objects.clear()
    running_hub.requests.clear()
    running_hub.authorizations.clear()
    running_hub.fault = lambda operation: None
    for key, value in {
        "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
        "HF_TOKEN_PATH": str(tmp_path / "no-token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_ETAG_TIMEOUT": 300,  # a busy machine is no fault
        "HF_HUB_DOWNLOAD_TIMEOUT": 300,
    }.items():
        monkeypatch.setattr(constants, key, value)
    monkeypatch.setenv("HF_TOKEN", server.WRITER)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("CONTRANS_CACHE", str(tmp_path / "contrans-cache"))
    # The client itself waits a second and more between its own attempts.
    hasty: Any = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds / 500), time=time.time)
    monkeypatch.setattr(huggingface_hub.utils._http, "time", hasty)
    monkeypatch.setattr(huggingface_hub.file_download, "time", hasty)
    monkeypatch.setattr("registry.hub.source._RESOLVE_SECONDS", 300.0)
    disable_progress_bars()
    close_session()
    yield running_hub
    close_session()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "registry.db"
    Registry.open(path).close()
    return path


@pytest.fixture
def registry(empty_database: Path, tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(shutil.copy(empty_database, tmp_path / "registry.db")) as opened:
        yield opened


@pytest.fixture
def made(registry: Registry) -> Made:
    """A concept with a validated transplant, and a second target."""
    return fill(registry)
