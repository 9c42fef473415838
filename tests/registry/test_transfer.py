import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrans.errors import RegistryError
from registry import Registry
from registry.archive import reading, writing
from registry.transfer import drafts
from tests.registry.conftest import make_chain


@pytest.fixture
def other(tmp_path: Path):
    with Registry.open(tmp_path / "other.db", blobs=tmp_path / "other") as opened:
        yield opened


def test_a_version_goes_over_with_its_lineage_and_what_judges_it(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    made = make_chain(registry)
    make_chain(registry, note="again")
    registry.tag(made["vector"], "paper")
    registry.describe_concept("anger", family="emotion", description="Hot.")
    registry.set_alias(made["transplant"], "production")
    written = registry.export(["anger@1"], tmp_path / "e")
    assert [version.kind for version in written] == [
        "text_set",
        "model",
        "model",
        "vector",
        "map",
        "transplant",
        "validation",
    ]
    other.register("vector", "anger/smollm2", manifest={"concept": "anger", "note": "was here first"})
    other.describe_concept("anger", description="Known.")
    got = other.import_versions(tmp_path / "e")
    assert [version.digest for version in got] == [version.digest for version in written]
    assert [version.number for version in got] == [1, 1, 1, 2, 1, 1, 1]
    assert got[5].aliases == ()
    assert other.tags(got[3]) == ("paper",)
    assert other.concepts() == {"anger": ("emotion", "Known.")}
    assert other.read(got[4], "map.safetensors") == b"map"
    assert other.results(got[6]) == registry.results(made["validation"])
    assert other.import_versions(tmp_path / "e") == got
    assert other.check(grace=timedelta(0)) == []
    other.export([str(got[3])], tmp_path / "back")
    assert registry.import_versions(tmp_path / "back")[-1] == made["vector"]
    assert len(registry.list()) == 10


def test_what_is_not_there_is_not_exported(sqlite_registry: Registry, tmp_path: Path) -> None:
    make_chain(sqlite_registry)
    with pytest.raises(RegistryError, match="no version named 'nosuch'"):
        sqlite_registry.export(["anger", "nosuch"], tmp_path / "e")
    assert not (tmp_path / "e").exists()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], dict[str, bytes], Path]:
    folder = tmp_path_factory.mktemp("exported")
    with Registry.open(folder / "registry.db") as registry:
        make_chain(registry)
        registry.export(["anger"], folder / "good")
    with reading(folder / "good") as archive:
        rows = list(archive.rows("version"))
        return rows, {sha256: archive.get(sha256, size) for sha256, size in archive.blobs.items()}, folder


def _forge(folder: Path, rows: list, blobs: dict[str, bytes]) -> Path:
    with writing(folder / "forged", "export", {}) as archive:
        archive.add_rows("version", rows)
        for sha256, data in blobs.items():
            archive.add_blob(sha256, data)
    return folder / "forged"


@pytest.mark.parametrize(
    ("change", "value", "message"),
    [
        ("3 manifest", {"concept": "joy"}, "vector:anger/smollm2 is not what its digest says"),
        ("3 kind", "nosuch", "'anger/smollm2' cannot be read"),
        ("3 name", "../x", "cannot be read"),
        ("3 name", None, "'None' cannot be read"),
        ("3 files", {"a": ["00", 1]}, "is not what its digest says"),
        ("3 files", {"../a": ["00", 1]}, "cannot be read"),
        ("3 files", {"a": ["00", -1]}, "cannot be read"),
        ("3 files", {"a": ["00", True]}, "cannot be read"),
        ("3 files", "abc", "cannot be read"),
        ("3 inputs", {"model": "00"}, "is not what its digest says"),
        ("6 results", [{"concept": "anger"}], "cannot be read"),
        ("3 tags", ["two words"], "cannot be read"),
        ("3 more", 1, "cannot be read"),
    ],
)
def test_forged_versions_are_refused(exported, change: str, value: object, message: str) -> None:
    rows, blobs, folder = exported
    rows = json.loads(json.dumps(rows))
    number, key = change.split()
    rows[int(number)][key] = value
    with reading(_forge(folder, rows, blobs)) as archive, pytest.raises(RegistryError, match=message):
        drafts(archive)


def test_an_export_without_a_part_is_refused(exported) -> None:
    rows, blobs, folder = exported
    with (
        reading(_forge(folder, rows[1:], blobs)) as archive,
        pytest.raises(RegistryError, match=r"all that .* was"),
    ):
        drafts(archive)
    with reading(_forge(folder, rows, {})) as archive, pytest.raises(RegistryError, match="does not hold the blob"):
        drafts(archive)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(
    number=st.integers(0, 6),
    key=st.sampled_from(["kind", "name", "number", "digest", "manifest", "files", "inputs", "results", "tags"]),
    value=json_values,
)
def test_any_version_is_read_or_refused(exported, number: int, key: str, value: object) -> None:
    rows, blobs, folder = exported
    rows = json.loads(json.dumps(rows))
    rows[number][key] = value
    try:
        path = _forge(folder, rows, blobs)
    except UnicodeEncodeError:
        return  # half a surrogate pair is no UTF-8 and cannot be in a file
    with reading(path) as archive:
        try:
            drafts(archive)
        except RegistryError:
            return
    assert key in ("number", "tags") or rows == exported[0]
