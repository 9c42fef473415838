"""Registries to test on: SQLite always, PostgreSQL where its programs are installed."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from registry import Registry, Result, Version
from registry.base import Base
from tests.registry import postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    try:
        running = postgres.server()
        url = running.__enter__()
    except postgres.Unavailable as reason:
        pytest.skip(str(reason))
    yield url
    running.__exit__(None, None, None)


@pytest.fixture
def fresh_postgres_url(postgres_server: str) -> str:
    """An empty database of one's own."""
    return create_database(postgres_server, f"registry_{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def shared_postgres(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Engine]]:
    """A database with tables, and an engine to empty them; a database of its own for every test is slow."""
    url = create_database(postgres_server, "registry_shared")
    Registry.open(url, blobs=tmp_path_factory.mktemp("unused")).close()
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    yield url, engine
    engine.dispose()


@pytest.fixture
def postgres_url(shared_postgres: tuple[str, Engine]) -> str:
    """A database with empty tables."""
    url, engine = shared_postgres
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):  # far faster than TRUNCATE on few rows
            connection.execute(table.delete())
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "registry.db"
    Registry.open(path).close()
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A file with empty tables; making them for every test is slow."""
    return str(shutil.copy(sqlite_template, tmp_path / "registry.db"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a registry is, on each database in turn."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_url")
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def registry(url: str, tmp_path: Path) -> Iterator[Registry]:
    """An empty registry on each database in turn."""
    with Registry.open(url, blobs=tmp_path / "blobs") as opened:
        yield opened


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that users without root's rights can reach, which pytest's own folders are not for them."""
    with tempfile.TemporaryDirectory(prefix="contrans-test-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.fixture
def sqlite_registry(sqlite_url: str) -> Iterator[Registry]:
    """An empty registry on SQLite."""
    with Registry.open(sqlite_url) as opened:
        yield opened


def make_chain(registry: Registry, *, note: str = "") -> dict[str, Version]:
    """One version of each kind: texts and two models → vector and map → transplant → validation."""
    made: dict[str, Version] = {}
    made["texts"] = registry.register("text_set", "corpus", manifest={"hash": "ab", "n_texts": 3})
    made["source"] = registry.register(
        "model", "smollm2", manifest={"reference": "org/SmolLM2", "hidden_size": 576, "family": "llama"}
    )
    made["target"] = registry.register("model", "gemma-3", manifest={"reference": "org/gemma-3"})
    made["vector"] = registry.register(
        "vector",
        "anger/smollm2",
        manifest={"concept": "anger", "estimator": "mean_difference", "note": note},
        files={"vector.safetensors": b"vector " + note.encode(), "vector.json": b"{}"},
        inputs={"model": made["source"], "texts": made["texts"]},
    )
    made["map"] = registry.register(
        "map",
        "smollm2/gemma-3",
        manifest={"estimator": "ridge", "lambda": 0.3},
        files={"map.safetensors": b"map"},
        inputs={"source": made["source"], "target": made["target"], "texts": made["texts"]},
    )
    made["transplant"] = registry.register(
        "transplant",
        "anger/gemma-3",
        manifest={"concept": "anger", "note": note},
        files={"vector.safetensors": b"transplant"},
        inputs={"vector": made["vector"], "map": made["map"], "target": made["target"]},
    )
    made["validation"] = registry.register(
        "validation",
        "anger/gemma-3/emotion",
        manifest={"protocol": "emotion", "split": "test", "note": note},
        inputs={"transplant": made["transplant"]},
        results=[
            Result("anger", "emotion", "test", "unsteered", "logit_accuracy", None, 0.12, 0.08, 0.17, 180),
            Result("anger", "emotion", "test", "transplanted", "logit_accuracy", 0.2, 0.91, 0.86, 0.95, 180),
            Result("anger", "emotion", "test", "transplanted", "gain_recovered", 0.2, None),
        ],
    )
    return made


def create_database(server: str, name: str) -> str:
    """Makes an empty database and gives its URL."""
    engine = create_engine(make_url(server).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return make_url(server).set(database=name).render_as_string(hide_password=False)
