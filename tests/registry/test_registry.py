import dataclasses
import errno
import json
import os
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from contrans.errors import RegistryError
from registry import Registry, Result, home, places
from tests.registry.conftest import make_chain
from tests.registry.workers import snapshot


def test_every_kind_comes_back_as_it_was_registered(registry: Registry) -> None:
    made = make_chain(registry)
    for version in made.values():
        assert registry.get(f"{version.kind}:{version.ref}") == version
        assert version.number == 1
        assert abs(version.created - datetime.now(UTC)) < timedelta(minutes=1)
        assert version.created.tzinfo is UTC
    assert registry.get("map:smollm2/gemma-3").manifest == {"estimator": "ridge", "lambda": 0.3}
    assert list(registry.files(made["vector"])) == ["vector.json", "vector.safetensors"]
    assert registry.read("vector:anger/smollm2", "vector.safetensors") == b"vector "
    assert registry.check() == []
    assert registry.check(grace=timedelta(0)) == []


def test_results_come_back_exactly_and_in_order(registry: Registry) -> None:
    results = [
        Result("mean", "emotion", "test", f"arm-{i}", "logit_accuracy", 0.1 * i, 1 / (i + 1), 1e-300, None, i)
        for i in range(20)
    ]
    version = registry.register("validation", "v", manifest={"protocol": "emotion"}, results=results)
    assert registry.results(version) == results
    shuffled = registry.register("validation", "v", manifest={"protocol": "emotion"}, results=results[::-1])
    assert shuffled == version


def test_equal_content_is_the_same_version(registry: Registry) -> None:
    first, second = make_chain(registry), make_chain(registry)
    assert first == second
    assert len(registry.list()) == len(first)


@pytest.mark.parametrize(
    "change",
    [
        {"manifest": {"concept": "anger", "note": 1}},
        {"files": {"v": b"other"}},
        {"files": {"w": b"v"}},
        {"files": {}},
        {"inputs": {}},
        {"inputs": "other role"},
    ],
)
def test_any_other_content_is_the_next_version(sqlite_registry: Registry, change: dict) -> None:
    model = sqlite_registry.register("model", "m", manifest={"reference": "m"})
    content = {"manifest": {"concept": "anger"}, "files": {"v": b"v"}, "inputs": {"model": model}}
    first = sqlite_registry.register("vector", "anger/m", **content)
    if change.get("inputs") == "other role":
        change = {"inputs": {"base": model}}
    second = sqlite_registry.register("vector", "anger/m", **content | change)
    assert (first.number, second.number) == (1, 2)
    assert first.digest != second.digest


def test_numbers_count_for_each_kind_and_name(registry: Registry) -> None:
    numbers = [
        registry.register(kind, name, manifest={"reference": "r", "hash": "h", "i": i}).number
        for i in range(3)
        for kind in ("model", "text_set")
        for name in ("a", "b")
    ]
    assert numbers == [1] * 4 + [2] * 4 + [3] * 4


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("poem", {"manifest": {}}, "no kind 'poem'"),
        ("model", {"manifest": {}}, "model needs `reference`"),
        ("text_set", {"manifest": {"n_texts": 3}}, "text_set needs `hash`"),
        ("vector", {"manifest": {}}, "vector needs `concept`"),
        ("transplant", {"manifest": {}}, "transplant needs `concept`"),
        ("validation", {"manifest": {}}, "validation needs `protocol`"),
        ("model", {"manifest": {"reference": 3}}, "`reference` in the manifest of x must be text, not 3"),
        ("model", {"manifest": {"reference": "r", "n_blocks": True}}, "must be a whole number, not True"),
        ("model", {"manifest": {"reference": "r", "n_blocks": 2**40}}, "must lie between 0 and 2³¹"),
        ("model", {"manifest": {"reference": "r", "family": "x" * 201}}, "longer than 200 characters"),
        ("model", {"manifest": {"reference": float("nan")}}, "manifest.reference is nan"),
        ("model", {"manifest": {"reference": "r"}, "files": {"../x": b""}}, "not a valid file name"),
        ("model", {"manifest": {"reference": "r"}, "files": {"x": "text"}}, "as bytes"),
        ("model", {"manifest": {"reference": "r"}, "results": [1]}, "A model has no results"),
    ],
)
def test_bad_input_is_refused_and_registers_nothing(
    sqlite_registry: Registry, kind: str, content: dict, message: str
) -> None:
    with pytest.raises(RegistryError, match=message):
        sqlite_registry.register(kind, "x", **content)
    assert sqlite_registry.list() == []
    with pytest.raises(RegistryError, match="the registry has none yet"):
        sqlite_registry.get("x")


def test_inputs_must_fit_and_be_in_this_registry(registry: Registry, tmp_path: Path) -> None:
    made = make_chain(registry)
    with pytest.raises(RegistryError, match="'model' of a vector must be a model, not the map smollm2/gemma-3@1"):
        registry.register("vector", "v", manifest={"concept": "c"}, inputs={"model": made["map"]})
    with Registry.open(tmp_path / "other.db", blobs=tmp_path / "other") as other:
        for i in range(5):
            other.register("model", "first", manifest={"reference": f"takes the id {i + 1}"})
        stranger = other.register("model", "new", manifest={"reference": "r"})
        known = other.register("model", "gemma-3", manifest={"reference": "org/gemma-3"})
    assert known.id != made["target"].id
    with pytest.raises(RegistryError, match=r"inputs base of text_set:t are not in this registry"):
        registry.register("text_set", "t", manifest={"hash": "h"}, inputs={"base": stranger})
    with pytest.raises(RegistryError, match="model:new@1 is not in this registry"):
        registry.files(stranger)
    made_here = registry.register("text_set", "t", manifest={"hash": "h"}, inputs={"base": known})
    assert registry.lineage(made_here).parents(made_here) == [("base", made["target"])]


def test_transplant_takes_its_concept_from_its_vector(registry: Registry) -> None:
    vector = make_chain(registry)["vector"]
    registry.register("transplant", "x", manifest={}, inputs={"vector": vector})
    assert [version.name for version in registry.list("transplant", "anger")] == ["x", "anger/gemma-3"]


def test_read_says_which_files_there_are(registry: Registry) -> None:
    version = make_chain(registry)["vector"]
    with pytest.raises(RegistryError, match=r"no file 'x'; it has vector\.json, vector\.safetensors"):
        registry.read(version, "x")
    assert registry.read_all(version) == {name: registry.read(version, name) for name in registry.files(version)}


def test_alias_moves_and_keeps_its_history(registry: Registry) -> None:
    one, two = (make_chain(registry, note=note)["transplant"] for note in ("", "again"))
    registry.set_alias(one, "production")
    assert registry.set_alias(one, "candidate").aliases == ("candidate", "production")
    assert registry.set_alias("anger@2", "production").aliases == ("production",)
    registry.set_alias(two, "production")
    assert registry.get("anger/gemma-3@production", kind="transplant") == two
    assert (registry.aliases(one), registry.aliases(two)) == (("candidate",), ("production",))
    moves = registry.alias_history(one, "production")
    assert [move.version for move in moves] == [one, two]
    assert moves[0].moved_at < moves[1].moved_at
    assert registry.list(alias="production") == [two]
    with pytest.raises(RegistryError, match="not a valid alias"):
        registry.set_alias(one, "3")


def test_concepts_are_described(registry: Registry) -> None:
    make_chain(registry)
    registry.describe_concept("anger", family="emotion")
    registry.describe_concept("anger", description="Being angry.")
    assert registry.concepts() == {"anger": ("emotion", "Being angry.")}


def test_as_json() -> None:
    version = dataclasses.replace(
        _plain_version(), aliases=("production",), created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    )
    assert json.loads(json.dumps(version.as_json())) == {
        "name": "anger/m",
        "kind": "vector",
        "version": 3,
        "ref": "anger/m@3",
        "aliases": ["production"],
        "created": "2026-01-02T03:04:05+00:00",
        "digest": "00",
    }
    assert version.as_json(manifest=True)["manifest"] == {"concept": "anger"}
    assert pickle.loads(pickle.dumps(version)) == version
    assert len({version, dataclasses.replace(version, aliases=())}) == 1


def _plain_version():
    from registry import Version

    return Version(7, "vector", "anger/m", 3, "00", datetime.now(UTC), {"concept": "anger"})


def test_content_digest_ignores_ids_times_runs_and_aliases(registry: Registry, tmp_path: Path) -> None:
    make_chain(registry)
    with Registry.open(tmp_path / "other.db", blobs=tmp_path / "other") as other:
        other.start_run("r", spec={}, spec_hash="s")
        other.register("model", "gemma-3", manifest={"reference": "org/gemma-3"}, run_id="r")
        made = make_chain(other)
        other.set_alias(made["transplant"], "production")
        assert other.content_digest() == registry.content_digest()
        make_chain(other, note="more")
        assert other.content_digest() != registry.content_digest()


def test_full_disk_for_blobs_registers_nothing(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    before = registry.content_digest()

    def full(handle: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(places.os, "write", full)
    with pytest.raises(RegistryError, match=r"No space left on device.*Nothing was registered"):
        registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": b"text"})
    monkeypatch.undo()
    assert registry.content_digest() == before
    assert registry.check(grace=timedelta(0)) == []
    assert registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": b"text"}).number == 1


def test_full_disk_for_the_database_registers_nothing(sqlite_registry: Registry) -> None:
    sqlite_registry.register("text_set", "t", manifest={"hash": "h"})
    before = sqlite_registry.content_digest()
    sqlite_registry.close()

    def shrink(connection, record) -> None:
        connection.execute("PRAGMA max_page_count=1")  # never below what the file has already

    event.listen(sqlite_registry._database._engine, "connect", shrink)
    with pytest.raises(RegistryError, match="no space left on its disk"):
        sqlite_registry.register("text_set", "t", manifest={"hash": "x" * 100, "long": "x" * 100_000})
    event.remove(sqlite_registry._database._engine, "connect", shrink)
    sqlite_registry.close()
    assert sqlite_registry.content_digest() == before
    assert sqlite_registry.register("text_set", "t", manifest={"hash": "i"}).number == 2


def test_failure_after_the_blobs_leaves_no_row(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="There is no run 'nosuch'"):
        registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": b"text"}, run_id="nosuch")
    assert registry.list() == []
    assert registry.check() == []
    assert [problem.kind for problem in registry.check(grace=timedelta(0))] == ["orphaned"]
    assert len(snapshot(tmp_path / "blobs")) == 1


def test_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path / "home"))
    with Registry.open() as registry:
        registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": b"text"})
    assert (home() / "registry.db").exists()
    assert len(list((home() / "blobs").glob("*/*"))) == 1
    monkeypatch.delenv("CONTRANS_HOME")
    assert home() == Path.home() / ".contrans"


def test_import_is_light() -> None:
    heavy = "torch", "transformers", "alembic", "prefect", "mlflow"
    code = f"import sys, registry; sys.exit(len({{*{heavy}}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
