"""Whatever stands in a manifest or a tensor file: it is read, or refused with our own error."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contrans.errors import ContransError
from registry import Registry
from registry.hub.bundle import Bundle, bundle
from registry.hub.manifest import FileEntry, Manifest
from registry.hub.parsing import read_manifest
from registry.hub.tensors import read_tensors
from tests.hub.concepts import SOURCE, TARGET, edited, fill

QUIET = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    with Registry.open(tmp_path_factory.mktemp("fuzz") / "registry.db") as registry:
        fill(registry)
        return bundle(registry, f"anger/{SOURCE.name}/{TARGET.name}")


def _manifest(data: bytes) -> Manifest | None:
    try:
        return read_manifest(data, what="it")
    except ContransError:
        return None


@QUIET
@given(data=st.binary(max_size=200) | ANY.map(lambda value: json.dumps(value).encode()))
def test_anything_as_a_manifest(data: bytes) -> None:
    assert _manifest(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"1" * 100_000,
        b'{"format_version": 1e999}',
        b'{"format_version": NaN}',
        b'{"format_version": ' + b"9" * 5000 + b"}",
        b"\xff\xfe{}",
        b'"\\ud800"',
    ],
)
def test_tricks_as_a_manifest(data: bytes) -> None:
    assert _manifest(data) is None


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, part in inner for path in _paths(part, (*at, key)))]


@QUIET
@given(data=st.data())
def test_one_value_changed(good: Bundle, data: st.DataObject) -> None:
    found = json.loads(good.files["contrans.json"])
    found["validations"][0]["results"] = found["validations"][0]["results"][:2]
    path = data.draw(st.sampled_from(_paths(found)[1:]))
    value = data.draw(ANY.filter(lambda v: "nan" not in repr(v) and "inf" not in repr(v) and "\\ud" not in repr(v)))
    part = found
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    manifest = _manifest(edited(json.dumps(found).encode()))
    if manifest is not None:
        try:
            tensors = read_tensors(good.files["model.safetensors"], manifest, what="it")
        except ContransError:
            return
        assert all(t.ndim == 1 for t in tensors.values())


@QUIET
@given(data=st.data())
def test_tensors_with_bytes_changed(good: Bundle, data: st.DataObject) -> None:
    raw = bytearray(good.files["model.safetensors"])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    _tensors(bytes(raw), good)


@QUIET
@given(
    header=st.binary(max_size=60) | ANY.map(lambda value: json.dumps(value).encode()), length=st.integers(0, 2**64 - 1)
)
def test_any_header(good: Bundle, header: bytes, length: int) -> None:
    rest = good.files["model.safetensors"][-400:]
    _tensors(length.to_bytes(8, "little") + header + rest, good)
    _tensors(len(header).to_bytes(8, "little") + header + rest, good)


def _tensors(raw: bytes, good: Bundle) -> None:
    """Reads a tensor file that the manifest vouches for, so that its hash does not save us."""
    import hashlib

    entry = FileEntry(size=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    manifest = good.manifest.model_copy(update={"files": {**good.manifest.files, "model.safetensors": entry}})
    try:
        tensors = read_tensors(raw, manifest, what="it")
    except ContransError:
        return
    assert {tuple(t.shape) for t in tensors.values()} == {(SOURCE.hidden_size,), (TARGET.hidden_size,)}


def test_the_good_one_is_read(good: Bundle, tmp_path: Path) -> None:
    manifest = _manifest(good.files["contrans.json"])
    assert manifest is not None
    assert manifest.to_bytes() == good.files["contrans.json"]
    assert len(read_tensors(good.files["model.safetensors"], manifest, what="it")) == 6


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
@pytest.mark.parametrize("reader", ["manifest", "tensors"])
def test_coverage_guided(reader: str) -> None:
    """A short form of `python -m tests.hub.fuzz`."""
    command = [sys.executable, "-m", "tests.hub.fuzz", reader, "-runs=3000", "-seed=1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 3000 runs" in done.stderr
