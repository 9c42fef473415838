"""Places that are no folder: an S3 server of our own, memory, and a filesystem that fails."""

import errno
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from contrans.errors import RegistryError
from registry import Registry
from registry.blobs import BlobStore
from tests.registry.conftest import make_chain

NOW = timedelta(0)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket on a server on loopback that speaks S3."""
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    s3fs.S3FileSystem.clear_instance_cache()  # one that is remembered talks to the server of another module
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-word")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        try:
            s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)  # buckets outlive their server in a process
            yield "s3://bucket"
        finally:
            server.stop()


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest) -> str:
    root = "memory:/" if request.param == "memory" else request.getfixturevalue("s3")
    return f"{root}/{uuid.uuid4().hex}"


def test_a_registry_on_an_object_store(place: str, sqlite_url: str, tmp_path: Path) -> None:
    with Registry.open(sqlite_url, blobs=place) as registry:
        made = make_chain(registry)
        assert make_chain(registry) == made
        assert registry.read(made["vector"], "vector.safetensors") == b"vector "
        assert registry.check(grace=NOW) == []
        stray = registry._blobs.put(b"stray")
        assert [problem.kind for problem in registry.check(grace=NOW)] == ["orphaned"]
        assert registry.gc(grace=timedelta(hours=1)).keys == ()
        assert registry.gc(grace=NOW).keys == (f"{stray[:2]}/{stray}",)
        assert registry.check(grace=NOW) == []
        registry.backup(tmp_path / "b")
        lost = registry.files(made["map"])["map.safetensors"]
        registry._blobs._backend.remove(f"{lost[:2]}/{lost}")
        assert [problem.kind for problem in registry.check()] == ["missing"]
        with pytest.raises(RegistryError, match="is missing from"):
            registry.read(made["map"], "map.safetensors")
        registry._blobs._backend.write(f"{lost[:2]}/{lost}", b"mop")
        assert [problem.kind for problem in registry.check()] == ["corrupt"]
        assert [problem.repaired for problem in registry.repair(source=tmp_path / "b")] == [True]
        assert registry.check(grace=NOW) == []


def test_a_bucket_that_is_not_there(s3: str, sqlite_url: str) -> None:
    with Registry.open(sqlite_url, blobs="s3://nosuch/x") as registry:
        with pytest.raises(RegistryError, match=r"blob store s3://nosuch/x cannot be written.*Nothing was registered"):
            registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": b"text"})
        assert registry.list() == []


class FaultyFileSystem(MemoryFileSystem):
    """A filesystem that fails as it is told to; `faults` are taken one a call of `pipe_file`."""

    protocol = "faulty"
    store: dict = {}  # noqa: RUF012  its own, not that of memory://
    pseudo_dirs = [""]  # noqa: RUF012
    faults: list = []  # noqa: RUF012

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        fault = type(self).faults.pop(0) if type(self).faults else None
        if isinstance(fault, Exception):
            raise fault
        super().pipe_file(path, value if fault is None else value[:fault], mode, **kwargs)


class PackageError(Exception):
    """As packages have that do not know `OSError`."""


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (PermissionError("Access Denied"), "Access Denied"),
        (PackageError("502 at https://me:word@host/x"), r"PackageError: 502 at https://me:\*\*\*@host/x"),
        (2, "only 2 of 4 bytes arrived"),
    ],
)
def test_a_store_that_fails_registers_nothing(sqlite_url: str, fault: object, message: str) -> None:
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    FaultyFileSystem.store.clear()
    FaultyFileSystem.faults[:] = [fault]
    with Registry.open(sqlite_url, blobs="faulty://blobs") as registry:
        before = registry.content_digest()
        with pytest.raises(RegistryError, match=f"{message}.*Nothing was registered") as caught:
            registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": b"text"})
        assert "word" not in str(caught.value)
        assert registry.content_digest() == before
        version = registry.register("text_set", "t", manifest={"hash": "h"}, files={"t": b"text"})
        assert (version.number, registry.read(version, "t")) == (1, b"text")
        assert registry.check(grace=NOW) == []


def test_size_limit(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, max_size=10)
    with pytest.raises(RegistryError, match=r"A file of 11 bytes is more than a registry takes \(10 bytes\)"):
        store.put(b"x" * 11)
    assert list(tmp_path.iterdir()) == []
    sha256 = BlobStore(tmp_path).put(b"x" * 11)
    with pytest.raises(RegistryError, match="is more than a registry takes"):
        store.get(sha256, 11)
