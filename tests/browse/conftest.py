"""A filled registry, and the application on it, shared by the tests of a session since they only read."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from registry import Version
from registry.browse import Reader, create_app
from tests.browse.material import registry_in

ADDRESS = "http://127.0.0.1"


@dataclass(frozen=True)
class Filled:
    """Where the registry is, and what it holds."""

    folder: Path
    made: dict[str, Version]

    @property
    def path(self) -> Path:
        return self.folder / "registry.db"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: drives chromium with Playwright, where both are installed")


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    folder = tmp_path_factory.mktemp("browse")
    return Filled(folder, registry_in(folder))


@pytest.fixture(scope="session")
def reader(filled: Filled) -> Iterator[Reader]:
    with Reader.open(filled.path) as opened:
        yield opened


@pytest.fixture(scope="session")
def client(reader: Reader) -> Iterator[TestClient]:
    # The processes of the playground share the cores with the tests.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with TestClient(create_app(reader), base_url=ADDRESS, raise_server_exceptions=True) as opened:
        yield opened
