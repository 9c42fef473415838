from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from contrans.errors import RegistryError
from registry import Registry
from tests.registry.conftest import make_chain


def _blob(folder: Path, registry: Registry, filename: str) -> Path:
    sha256 = registry.files("vector:anger/smollm2")[filename]
    return folder / "blobs" / sha256[:2] / sha256


def test_missing_and_corrupt_blobs_are_found_and_healed(registry: Registry, tmp_path: Path) -> None:
    make_chain(registry)
    gone, bad = (_blob(tmp_path, registry, name) for name in ("vector.json", "vector.safetensors"))
    gone.unlink()
    bad.write_bytes(b"Vector ")
    found = {problem.kind: problem for problem in registry.check()}
    assert set(found) == {"missing", "corrupt"}
    assert found["missing"].subject == gone.name
    assert found["corrupt"].subject == bad.name
    assert "restore it" in str(found["corrupt"])
    with pytest.raises(RegistryError, match="is missing from"):
        registry.read("vector:anger/smollm2", "vector.json")
    with pytest.raises(RegistryError, match="is damaged in"):
        registry.read("vector:anger/smollm2", "vector.safetensors")
    make_chain(registry)
    assert registry.check() == []


def test_orphans_are_reported_after_a_grace_period(registry: Registry, tmp_path: Path) -> None:
    make_chain(registry)
    (tmp_path / "blobs" / "ab").mkdir(exist_ok=True)
    (tmp_path / "blobs" / "ab" / ".half.part").write_bytes(b"half")
    assert registry.check() == []
    (problem,) = registry.check(grace=timedelta(0))
    assert (problem.kind, problem.subject) == ("orphaned", "ab/.half.part")


@pytest.mark.parametrize(
    ("subject", "change"),
    [
        (
            "map:smollm2/gemma-3@1",
            """UPDATE version SET manifest = '{"estimator": "ridge", "lambda": 0.4}' WHERE kind = 'map'""",
        ),
        ("map:smollm2/gemma-3@1", "UPDATE version SET manifest = '[]' WHERE kind = 'map'"),
        (
            "validation:anger/gemma-3/emotion@1",
            "UPDATE result SET value = 0.99 WHERE arm = 'transplanted' AND metric = 'logit_accuracy'",
        ),
        ("validation:anger/gemma-3/emotion@1", "DELETE FROM result WHERE arm = 'unsteered'"),
        ("vector:anger/smollm2@1", "DELETE FROM file WHERE filename = 'vector.json'"),
        ("transplant:anger/gemma-3@1", "UPDATE lineage_edge SET role = 'other' WHERE role = 'map'"),
        ("validation:anger/gemma-3/emotion@1", "UPDATE version SET digest = '00' WHERE kind = 'validation'"),
    ],
)
def test_changed_rows_are_found(sqlite_registry: Registry, subject: str, change: str) -> None:
    make_chain(sqlite_registry)
    with sqlite_registry._database.writing() as session:
        session.execute(text(change))
    (problem,) = sqlite_registry.check()
    assert (problem.kind, problem.subject) == ("altered", subject)


def test_more_versions_than_a_page(sqlite_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.verify._BATCH", 3)
    make_chain(sqlite_registry)
    make_chain(sqlite_registry, note="again")
    assert sqlite_registry.check() == []
