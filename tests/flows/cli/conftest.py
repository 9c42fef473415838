"""A registry as a pipeline leaves it, and one with a model that can be played with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from registry import Registry
from tests.browse.material import registry_in
from tests.hub.concepts import fill

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose registry holds the concept anger for two models, twice for the first."""
    home = tmp_path_factory.mktemp("held")
    with Registry.open(home / "registry.db") as registry:
        fill(registry)
        made = fill(registry, note="again", seed=7)
        registry.set_alias(made.versions["large"], "production")
    return home


@pytest.fixture(scope="session")
def playable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose registry holds anger and joy, three versions each, for a tiny model that lies beside it."""
    home = tmp_path_factory.mktemp("playable")
    registry_in(home)
    return home
