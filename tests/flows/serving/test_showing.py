"""What runs leave on the server: assets by name, and a heat map where there are several pairs."""

import base64
import json
from pathlib import Path

import pytest

from flows.serving.showing import asset_of
from registry import Registry
from tests.flows.conftest import Runner
from tests.registry.conftest import make_chain

PAIRS = """
import json
from prefect import flow, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from flows.serving.showing import begin_run, leave_pairs

@flow
def pairs():
    begin_run(["spec:pairs"])
    leave_pairs({("a", "c"): 0.5, ("b", "c"): -0.1, ("a", "d"): 0.9}, unit="gain recovered")

pairs()
with get_client(sync_client=True) as client:
    (found,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["contrans-pairs"])))
print(json.dumps({"type": found.type, "data": found.data, "description": found.description}))
raise SystemExit
"""


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry.open(tmp_path_factory.mktemp("assets") / "registry.db")


def test_versions_of_a_name_are_one_asset(registry: Registry) -> None:
    first, second = make_chain(registry)["vector"], make_chain(registry, note="again")["vector"]
    assert (first.number, second.number) == (1, 2)
    assert asset_of(first) == asset_of(second)
    assert asset_of(first).key == "contrans://registry/vector/anger/smollm2"


def test_pairs_are_a_heat_map(contrans: Runner, tmp_path: Path) -> None:
    process = contrans(tmp_path, code=PAIRS)
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert (found["type"], found["description"]) == ("image", "Gain recovered by source (rows) and target (columns)")
    start, _, data = found["data"].partition(",")
    assert start == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")
