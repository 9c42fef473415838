"""A vector that lies in somebody's repository on the Hub: pinned to a commit, checked, registered with where from."""

import pytest

from contrans.errors import ArtifactError, RegistryError
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


def test_from_a_repository(hub, registry):  # noqa: F811
    from huggingface_hub import CommitOperationAdd

    model = tiny("llama")
    made = Shift("anger", model.record, directions(1, 2, width=model.hidden_size), 0.3)
    client = api(hub.url)
    client.create_repo(REPO)
    files = {"v/anger.gguf": FORMATS["repeng"].write(made), "v/bad.gguf": FORMATS["repeng"].write(made)[:-40]}
    added = [CommitOperationAdd(path, data) for path, data in files.items() if isinstance(data, bytes)]
    commit = client.create_commit(REPO, added, commit_message="vectors").oid

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
    with pytest.raises(HubError):
        brought(file="v/missing.gguf")
    with pytest.raises(RegistryError, match="is a folder of files, which is not taken from the Hub"):
        brought(format="easyedit2", file="v")
