from datetime import timedelta
from pathlib import Path

import pytest

from contrans.errors import RegistryError
from registry import NewVersion, Registry, Result
from tests.registry.conftest import make_chain
from tests.registry.workers import snapshot


def _chain(note: str = "") -> list[NewVersion]:
    """What `make_chain` registers one by one."""
    texts = NewVersion(kind="text_set", name="corpus", manifest={"hash": "ab", "n_texts": 3})
    facts = {"reference": "org/SmolLM2", "hidden_size": 576, "family": "llama"}
    source = NewVersion(kind="model", name="smollm2", manifest=facts)
    target = NewVersion(kind="model", name="gemma-3", manifest={"reference": "org/gemma-3"})
    vector = NewVersion(
        kind="vector",
        name="anger/smollm2",
        manifest={"concept": "anger", "estimator": "mean_difference", "note": note},
        files={"vector.safetensors": b"vector " + note.encode(), "vector.json": b"{}"},
        inputs={"model": source, "texts": texts},
    )
    map_ = NewVersion(
        kind="map",
        name="smollm2/gemma-3",
        manifest={"estimator": "ridge", "lambda": 0.3},
        files={"map.safetensors": b"map"},
        inputs={"source": source, "target": target, "texts": texts},
    )
    transplant = NewVersion(
        kind="transplant",
        name="anger/gemma-3",
        manifest={"concept": "anger", "note": note},
        files={"vector.safetensors": b"transplant"},
        inputs={"vector": vector, "map": map_, "target": target},
    )
    validation = NewVersion(
        kind="validation",
        name="anger/gemma-3/emotion",
        manifest={"protocol": "emotion", "split": "test", "note": note},
        inputs={"transplant": transplant},
        results=[
            Result("anger", "emotion", "test", "unsteered", "logit_accuracy", None, 0.12, 0.08, 0.17, 180),
            Result("anger", "emotion", "test", "transplanted", "logit_accuracy", 0.2, 0.91, 0.86, 0.95, 180),
            Result("anger", "emotion", "test", "transplanted", "gain_recovered", 0.2, None),
        ],
    )
    return [texts, source, target, vector, map_, transplant, validation]


def test_together_is_the_same_as_one_by_one(registry: Registry, tmp_path: Path) -> None:
    registry.start_run("r", spec={}, spec_hash="h")
    made = registry.register_many([*_chain(), *_chain("again"), *_chain()], run_id="r")
    assert made[:7] == made[14:]
    assert registry.run_versions("r") == sorted(set(made), key=lambda version: version.id)
    with Registry.open(tmp_path / "other.db", blobs=tmp_path / "other") as other:
        one = make_chain(other)
        make_chain(other, note="again")
        assert other.content_digest() == registry.content_digest()
        assert [str(version) for version in made[:7]] == [str(version) for version in one.values()]
    assert registry.check(grace=timedelta(0)) == []
    assert [registry.get(str(version)) for version in made] == made
    assert registry.register_many([]) == []
    registry.set_alias(made[5], "production")
    assert registry.register_many(_chain())[5].aliases == ("production",)
    assert len(registry.results(made[6])) == 3


def test_a_transplant_takes_its_concept_from_a_vector_of_the_same_call(registry: Registry) -> None:
    vector = NewVersion(kind="vector", name="joy/m", manifest={"concept": "joy"})
    transplant = NewVersion(kind="transplant", name="joy/n", manifest={}, inputs={"vector": vector})
    made = registry.register_many([vector, transplant])
    assert registry.list("transplant", "joy") == made[1:]


def test_all_or_none(registry: Registry, tmp_path: Path) -> None:
    bad = NewVersion(kind="text_set", name="last", manifest={})
    with pytest.raises(RegistryError, match="needs `hash`"):
        registry.register_many([*_chain(), bad])
    assert registry.list() == []
    assert [problem.kind for problem in registry.check()] == []
    late = _chain()
    with pytest.raises(RegistryError, match="is new itself; put it before"):
        registry.register_many(late[::-1])
    with pytest.raises(RegistryError, match="A vector has no results"):
        registry.register_many(
            [NewVersion(kind="vector", name="v", manifest={}, results=[Result("a", "p", "test", "a", "m", None, 1)])]
        )
    registry.gc(grace=timedelta(0))
    assert snapshot(tmp_path / "blobs") == {}
    assert [version.number for version in registry.register_many(late)] == [1] * 7


def test_many_more_than_a_statement_takes(sqlite_registry: Registry) -> None:
    new = [NewVersion(kind="text_set", name=f"n{i % 700}", manifest={"hash": str(i)}) for i in range(1500)]
    made = sqlite_registry.register_many(new)
    assert len(sqlite_registry.list()) == 1500
    assert [version.number for version in made[:701]] == [1] * 700 + [2]
    assert sqlite_registry.check() == []
