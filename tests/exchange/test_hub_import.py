"""A vector that lies in somebody's repository on the Hub: pinned to a commit, checked, registered with where from."""

import pytest
import torch

from contrans.errors import ArtifactError
from contrans.exchange import FORMATS, Shift
from registry import Registry
from registry.hub.client import HubError, api
from registry.imported import import_vector
from tests.exchange.made import directions
from tests.hub.conftest import hub, running_hub  # noqa: F401  fixtures
from tests.tiny import tiny

TEXTS = ["the cat sat there with their mother", "one stone alone", "they think of the weather"]
REPO = "org/vectors"


@pytest.fixture
def registry(tmp_path):
    with Registry.open(tmp_path / "registry.db") as opened:
        yield opened


def operations(files):
    from huggingface_hub import CommitOperationAdd

    return [CommitOperationAdd(path, data) for path, data in files.items()]


def test_from_a_repository(hub, registry):  # noqa: F811
    model = tiny("llama")
    made = Shift("anger", model.record, directions(1, 2, width=model.hidden_size), 0.3)
    client = api(hub.url)
    client.create_repo(REPO)
    files = {"v/anger.gguf": FORMATS["repeng"].write(made), "v/bad.gguf": FORMATS["repeng"].write(made)[:-40]}
    commit = client.create_commit(REPO, operations(files), commit_message="vectors").oid

    def brought(place=REPO, file="v/anger.gguf", **more):
        settings = {"format": "repeng", "model": model, "concept": "anger", "measured_on": TEXTS} | more
        return import_vector(registry, place, file=file, endpoint=hub.url, **settings)

    for place in (REPO, f"{REPO}@main", f"{REPO}@{commit}", f"hf://{REPO}"):
        found = brought(place)
        assert found.version.ref == "anger/tiny-llama-0/repeng@1"
        assert (found.origin["repo"], found.origin["commit"]) == (REPO, commit)
        assert found.origin["file"] == "v/anger.gguf"
    with pytest.raises(ArtifactError, match=r"org/vectors/v/bad\.gguf ends before"):
        brought(file="v/bad.gguf")
    with pytest.raises(HubError, match=r"org/vectors holds no file v/missing\.gguf at [0-9a-f]{12}; look at its files"):
        brought(file="v/missing.gguf")


def test_a_folder_of_a_repository(hub, registry):  # noqa: F811
    model = tiny("llama")
    made = Shift("anger", model.record, directions(1, 2, width=model.hidden_size), 0.3)
    parts = FORMATS["easyedit2"].write(made)
    assert isinstance(parts, dict)
    files = {f"caa/{name}": data for name, data in parts.items()} | {
        "caa/deeper/layer_3.pt": b"never fetched",
        "layer_3.pt": b"never fetched",
        "broken/layer_1.pt": b"\x80pickle",
        "empty/layer.txt": b"",
    }
    client = api(hub.url)
    client.create_repo(REPO)
    commit = client.create_commit(REPO, operations(files), commit_message="vectors").oid

    def brought(file):
        settings = {"format": "easyedit2", "model": model, "concept": "anger", "measured_on": TEXTS}
        return import_vector(registry, REPO, file=file, endpoint=hub.url, **settings)

    for file in ("caa", "caa/"):
        found = brought(file)
        assert found.version.ref == "anger/tiny-llama-0/easyedit2@1"
        assert found.origin.items() >= {"file": "caa", "repo": REPO, "commit": commit}.items()
        assert all(torch.equal(found.vector.directions[b], made.blocks[b]) for b in (1, 2))
    with pytest.raises(ArtifactError, match=r"org/vectors/broken/layer_1\.pt is a pickle or an archive"):
        brought("broken")
    with pytest.raises(ArtifactError, match=r"org/vectors/empty has no `layer_N\.pt`"):
        brought("empty")
