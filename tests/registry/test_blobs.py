import errno
import hashlib
import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contrans.errors import RegistryError
from registry import places as module
from registry.blobs import BlobStore
from tests.registry.workers import as_ordinary_user, snapshot


@pytest.fixture(params=["folder", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    places = {
        "folder": str(tmp_path / "b"),
        "file": f"file://{tmp_path}/b",
        "memory": f"memory://{uuid.uuid4()}",
    }
    return BlobStore(places[request.param])


def test_round_trip(store: BlobStore) -> None:
    for data in (b"", b"abc", os.urandom(100_000)):
        assert store.put(data) == hashlib.sha256(data).hexdigest()
        assert store.put(data) == hashlib.sha256(data).hexdigest()
        assert store.get(hashlib.sha256(data).hexdigest(), len(data)) == data


def test_missing_blob(store: BlobStore) -> None:
    sha256 = hashlib.sha256(b"never stored").hexdigest()
    with pytest.raises(RegistryError, match=f"{sha256[:12]} is missing from the store"):
        store.get(sha256, 12)
    assert store.fault(sha256, 12) is not None


def test_strays(store: BlobStore) -> None:
    now = datetime.now(UTC)
    assert list(store.strays(set(), now)) == []
    kept, stray = store.put(b"kept"), store.put(b"stray")
    later = now + timedelta(minutes=1)
    assert list(store.strays({kept}, later)) == [f"{stray[:2]}/{stray}"]
    assert list(store.strays({kept}, now - timedelta(minutes=1))) == []


@pytest.mark.parametrize("damage", [b"ABC", b"ab", b"abcd", b""])
def test_damaged_blob_is_found_and_healed_by_storing_it_again(tmp_path: Path, damage: bytes) -> None:
    store = BlobStore(tmp_path)
    sha256 = store.put(b"abc")
    (tmp_path / sha256[:2] / sha256).write_bytes(damage)
    with pytest.raises(RegistryError, match="is damaged in the store"):
        store.get(sha256, 3)
    store.put(b"abc")
    assert store.get(sha256, 3) == b"abc"


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    store = BlobStore(tmp_path)
    store.put(b"there before")
    before = snapshot(tmp_path)
    real, calls = getattr(os, call), 0

    def fail_late(handle: int, *data: memoryview) -> int | None:
        nonlocal calls
        calls += 1
        if call == "fsync" or calls > 1:
            raise OSError(code, os.strerror(code))
        return real(handle, data[0][:1000])  # a disk that fills up takes a part first

    monkeypatch.setattr(module.os, call, fail_late)
    with pytest.raises(RegistryError, match=os.strerror(code)):
        store.put(os.urandom(5000))
    monkeypatch.undo()
    assert snapshot(tmp_path) == before


def test_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        BlobStore(tmp_path).put(b"abc")
    assert snapshot(tmp_path) == {}


def test_folder_without_rights(open_folder: Path) -> None:
    place = open_folder / "blobs"
    BlobStore(place).put(b"abc")
    place.chmod(0o555)
    before = snapshot(place)
    said = as_ordinary_user(BlobStore(place).put, b"another")
    assert said.startswith("RegistryError: The blob store")
    assert "Permission denied" in said
    assert "Nothing was registered" in said
    assert snapshot(place) == before
    place.chmod(0o755)


def test_files_get_the_rights_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        sha256 = BlobStore(tmp_path).put(b"abc")
    finally:
        os.umask(old)
    assert (tmp_path / sha256[:2] / sha256).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("url", ["nosuch://place", "s3nope://user:word@place"])
def test_unknown_place_is_a_sentence_without_the_password(url: str) -> None:
    with pytest.raises(RegistryError, match="cannot be used") as caught:
        BlobStore(url)
    assert "word" not in str(caught.value)
