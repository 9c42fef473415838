"""Publishing to a Hub that speaks the real protocol: what arrives, and what is refused before a byte leaves."""

import io
import json
import logging
from collections.abc import Callable

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load

from contrans.errors import ArtifactError, RegistryError
from registry import Registry, Version
from registry.hub import HubError, Publication, publications
from registry.hub import publish as publish_
from registry.hub.parsing import read_manifest
from registry.hub.remote import Remote
from tests.hub.concepts import OTHER, SOURCE, TARGET, Made, fill
from tests.hub.conftest import QUICK
from tests.hub.server import WRITER, Hub

REPO = "org/concept-anger"
NAME = f"anger/{SOURCE.name}/{TARGET.name}"

Publish = Callable[..., Publication]


@pytest.fixture
def publish(hub: Hub, registry: Registry) -> Publish:
    def call(reference: str = NAME, repo: str = REPO, **options: object) -> Publication:
        return publish_(registry, reference, repo, endpoint=hub.url, patience=QUICK, **options)  # type: ignore[arg-type]

    return call


def test_one_commit_and_one_tag_with_all_that_is_promised(
    hub: Hub, made: Made, publish: Publish, registry: Registry
) -> None:
    done = publish()
    there = hub.repos[REPO]
    assert (done.created, done.tag, done.commit) == (True, "v1", there.head.oid)
    assert (len(there.commits), there.tags) == (2, {"v1": there.head.oid})
    files = there.head.files
    figure = f"figures/{TARGET.name}/emotion/accuracy.png"
    exports = {path for path in files if path.startswith(f"exports/{TARGET.name}/")}
    assert set(files) - exports == {".gitattributes", "README.md", "contrans.json", "model.safetensors", figure}
    assert len(exports) == 6

    tensors = load(files["model.safetensors"])
    expected = {f"source.block.{b}": made.source.direction(b) for b in range(5)}
    expected[f"target.{TARGET.name}.block.2"] = made.transplants[TARGET.name].direction(2)
    assert tensors.keys() == expected.keys()
    assert all(bool((tensors[name] == expected[name]).all()) for name in expected)

    manifest = read_manifest(files["contrans.json"], what=REPO)
    assert (manifest.concept, manifest.registered.ref) == ("anger", f"{NAME}@1")
    assert {s.split for s in manifest.splits} == {"refine", "test"}
    assert {a.registered.kind for a in manifest.lineage} >= {"model", "text_set", "vector", "map", "transplant"}
    [validation] = manifest.validations
    shown = {(r.arm, r.metric) for r in validation.results if r.low is not None}
    assert ("transplanted", "logit_accuracy") in shown
    assert validation.figures == [figure]
    assert {"torch", "contrans", "python"} <= manifest.library_versions.keys()

    [noted] = publications(registry, NAME)
    assert (noted.repo, noted.commit, noted.tag) == (REPO, done.commit, "v1")


def test_the_card_says_what_people_need(hub: Hub, made: Made, publish: Publish) -> None:
    publish()
    card = ModelCard(hub.repos[REPO].head.files["README.md"].decode())
    told = card.data.to_dict()
    assert told["library_name"] == "contrans"
    assert told["base_model"] == ["HuggingFaceTB/SmolLM2-135M-Instruct", "org/large"]
    assert told["license"] == "apache-2.0"
    assert {"contrans", "steering-vector", "concept:anger"} <= set(told["tags"])
    for part in ("random", "own", "Limits and intended use", "Licence", "wronged", "accuracy.png"):
        assert part in card.text
    code = card.text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == 5
    compile(code, "card", "exec")
    assert f'contrans.pull("{REPO}@v1"' in code


def test_publishing_the_same_again_changes_nothing(hub: Hub, made: Made, publish: Publish, registry: Registry) -> None:
    first = publish()
    again = publish()
    assert (again, again.created) == (first, False)
    assert len(hub.repos[REPO].commits) == 2
    assert len(publications(registry, NAME)) == 1


def test_people_may_edit_the_card_and_the_same_is_still_there(hub: Hub, made: Made, publish: Publish) -> None:
    first = publish()
    hub.put(REPO, {"README.md": b"---\nlicense: mit\n---\nmine"})
    assert publish().commit == first.commit
    assert len(hub.repos[REPO].commits) == 3


def test_the_next_version_takes_the_place_of_the_one_before(
    hub: Hub, made: Made, publish: Publish, registry: Registry
) -> None:
    publish(targets=[OTHER.name])
    hub.put(REPO, {"NOTES.md": b"of somebody"})
    fill(registry, note="better", seed=5)
    done = publish(f"{NAME}@2")
    there = hub.repos[REPO]
    assert list(there.tags) == ["v1", "v2"]
    assert not any(OTHER.name in path for path in there.head.files)  # v2 was published without that target
    assert there.head.files["NOTES.md"] == b"of somebody"
    assert there.tags["v2"] == done.commit


def test_further_targets_go_along(hub: Hub, made: Made, publish: Publish, registry: Registry) -> None:
    publish(targets=["all"])
    manifest = read_manifest(hub.repos[REPO].head.files["contrans.json"], what=REPO)
    assert [t.model.name for t in manifest.transplants] == [TARGET.name, OTHER.name]
    assert len(manifest.validations) == 2
    assert publications(registry, f"anger/{SOURCE.name}/{OTHER.name}")[0].tag == "v1"
    # What lies on the publisher's disk is nobody's business.
    assert all(b"/home/ann" not in data for data in hub.repos[REPO].head.files.values())
    assert manifest.transplants[1].model.reference == OTHER.name


def test_a_dry_run_sends_nothing(hub: Hub, made: Made, publish: Publish) -> None:
    done = publish(dry_run=True)
    assert (done.commit, done.created, hub.requests) == (None, False, [])
    assert "model.safetensors" in done.files


def test_a_private_repository_stays_private(hub: Hub, made: Made, publish: Publish) -> None:
    publish(private=True)
    assert hub.repos[REPO].private
    hub.create("org/open")
    with pytest.raises(HubError, match="exists and is public"):
        publish(repo="org/open", private=True)
    assert len(hub.repos["org/open"].commits) == 1


def test_without_a_validation_only_by_force(hub: Hub, registry: Registry, publish: Publish) -> None:
    fill(registry, validated=False)
    with pytest.raises(RegistryError, match=r"has no validation.*--force"):
        publish()
    assert hub.requests == []
    publish(force=True)
    assert "None of this was validated" in hub.repos[REPO].head.files["README.md"].decode()


def test_below_the_gate_of_production_only_by_force(hub: Hub, made: Made, registry: Registry, publish: Publish) -> None:
    registry.protect("production", "logit_accuracy > .99")
    with pytest.raises(RegistryError, match=r"may not be published: logit_accuracy of .* is 0\.6"):
        publish()
    registry.protect("production", "logit_accuracy > .1")
    assert publish().created


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: Hub, made: Made, publish: Publish, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    said = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(said))
    with caplog.at_level(logging.DEBUG):
        hub.fault = _once("commit", "drop")
        done = publish()
    assert hub.authorizations == {f"Bearer {WRITER}"}
    written = b"".join(data for commit in hub.repos[REPO].commits for data in commit.files.values())
    kept = b"".join(path.read_bytes() for path in registry._database.path.parent.rglob("*") if path.is_file())  # type: ignore
    assert WRITER.encode() not in written + kept
    assert WRITER not in caplog.text + said.getvalue() + json.dumps(done.as_json()) + str(done)


def test_what_looks_like_a_token_is_not_published(hub: Hub, registry: Registry, publish: Publish) -> None:
    fill(registry, note=f"made with {WRITER}")
    with pytest.raises(RegistryError, match="looks like a token") as caught:
        publish()
    assert WRITER not in str(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("reference", "repo", "options", "said"),
    [
        (NAME, "concept-anger", {}, "named org/name"),
        (NAME, "org/../etc", {}, "named org/name"),
        (NAME, "", {}, "named org/name"),
        ("angr", REPO, {}, "did you mean"),
        (f"vector:anger/{SOURCE.name}", REPO, {}, "a transplant is wanted"),
        (NAME, REPO, {"targets": ["org/huge"]}, "has no other transplant for org/huge; it has anger/"),
        (NAME, REPO, {"licence": "my-own"}, "no licence 'my-own'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    hub: Hub, made: Made, publish: Publish, reference: str, repo: str, options: dict[str, object], said: str
) -> None:
    with pytest.raises(RegistryError, match=said):
        publish(reference, repo, **options)
    assert hub.requests == []


def test_a_damaged_vector_is_refused(hub: Hub, registry: Registry, made: Made, publish: Publish) -> None:
    good = made.transplants[TARGET.name].to_files()
    bad = {**good, "concept_vector.safetensors": good["concept_vector.safetensors"][:-4] + b"\0\0\xc0\x7f"}  # NaN
    inputs = dict(registry.lineage(made.versions[TARGET.name], "up", depth=1).parents(made.versions[TARGET.name]))
    registry.register("transplant", NAME, manifest={"concept": "anger"}, files=bad, inputs=inputs)
    with pytest.raises(ArtifactError, match="not finite"):
        publish(force=True)
    assert hub.requests == []


def test_a_repository_of_something_else_is_left_alone(
    hub: Hub, made: Made, publish: Publish, registry: Registry
) -> None:
    hub.create("org/model", files={"pytorch_model.bin": b"weights"})
    with pytest.raises(HubError, match=r"holds other files, such as pytorch_model\.bin.*Nothing was published"):
        publish(repo="org/model")
    publish()
    with pytest.raises(HubError, match=r"already has a tag v1 with other content"):
        publish(f"anger/{SOURCE.name}/{OTHER.name}")
    fill(registry, note="two", seed=7)
    with pytest.raises(HubError, match=f"holds versions of {NAME}"):
        publish(f"anger/{SOURCE.name}/{OTHER.name}@2")
    hub.create("org/newer", files={"contrans.json": b'{"format_version": 9, "needs_contrans": "3.1"}'})
    with pytest.raises(HubError, match=r"needs contrans ≥ 3\.1"):
        publish(repo="org/newer")
    assert [len(repo.commits) for repo in hub.repos.values()] == [1, 2, 1]


def test_a_tag_never_moves(hub: Hub, made: Made, publish: Publish) -> None:
    publish()
    with pytest.raises(HubError, match="A tag never moves"):
        publish(targets=["all"])
    assert len(hub.repos[REPO].commits) == 2


def test_without_the_right_to_write(hub: Hub, made: Made, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(HubError, match=r"does not accept your token.*hf auth login"):
        publish()


def _once(operation: str, fault: str) -> Callable[[str], str | None]:
    left = [fault]
    return lambda asked: left.pop() if asked == operation and left else None


OPERATIONS = (
    *("create", "info", "refs", "commits", "preupload", "batch"),
    *("put", "lfs-verify", "commit", "tag", "paths-info"),
)


@pytest.mark.parametrize("fault", ["drop", "lost", "500", "412", "slow"])
def test_a_fault_anywhere_ends_in_one_commit(hub: Hub, made: Made, publish: Publish, fault: str) -> None:
    for operation in OPERATIONS if fault != "412" else ("commit",):
        hub.objects.clear()
        hub.requests.clear()
        hub.fault = _once(operation, fault)
        repo = f"org/concept-{operation}"
        done = publish(repo=repo)
        there = hub.repos[repo]
        assert operation in hub.requests
        assert (len(there.commits), there.tags) == (2, {"v1": there.head.oid}), operation
        assert (done.commit, done.created) == (there.head.oid, True)


def test_somebody_else_commits_meanwhile(hub: Hub, made: Made, publish: Publish) -> None:
    left = [1]

    def meanwhile(operation: str) -> None:
        if operation == "commit" and left:
            left.pop()
            hub.put(REPO, {"LICENSE": b"meanwhile"})

    hub.fault = meanwhile
    publish()
    there = hub.repos[REPO]
    assert [commit.title for commit in there.commits][1] == "edit"
    assert (len(there.commits), there.tags) == (3, {"v1": there.head.oid})
    assert there.head.files["LICENSE"] == b"meanwhile"


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_in_the_middle(
    hub: Hub, made: Made, publish: Publish, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    method = "commit" if when == "before" else "tag"
    with monkeypatch.context() as patch:

        def killed(*arguments: object) -> None:
            raise _Killed

        patch.setattr(Remote, method, killed)
        with pytest.raises(_Killed):
            publish()
    assert len(hub.repos[REPO].commits) == (1 if when == "before" else 2)
    if when == "after":
        hub.put(REPO, {"README.md": b"edited before the second try"})
    done = publish()
    there = hub.repos[REPO]
    assert done.created == (when == "before")
    assert there.tags == {"v1": there.commits[1].oid}


def test_patience_ends_and_says_what_is_there(hub: Hub, made: Made, publish: Publish) -> None:
    hub.fault = lambda operation: "500" if operation == "tag" else None
    with pytest.raises(HubError, match=r"files are there as commit .* tag v1 is not set; publish again") as caught:
        publish()
    assert caught.value.passing
    hub.fault = lambda operation: None
    assert publish().tag == "v1"
    assert len(hub.repos[REPO].commits) == 2


def test_an_answer_that_the_client_cannot_read(hub: Hub, made: Made, publish: Publish) -> None:
    # The client takes "/commit/" in the commit's address for something else, after the commit was made.
    with pytest.raises(HubError, match="Whether the files arrived is not known; publish again"):
        publish(repo="org/commit")
    publish(repo="org/commit")
    there = hub.repos["org/commit"]
    assert (len(there.commits), there.tags) == (2, {"v1": there.head.oid})


def test_the_registry_cannot_be_written_afterwards(
    hub: Hub, made: Made, publish: Publish, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise RegistryError("The registry has no space left on its disk.")

    with monkeypatch.context() as patch:
        patch.setattr("registry.hub.publishing.record", full)
        with pytest.raises(RegistryError, match="no space left"):
            publish()
    assert publications(registry, NAME) == []
    publish()
    assert len(publications(registry, NAME)) == 1
    assert len(hub.repos[REPO].commits) == 2


def test_versions_of_another_registry_are_unknown(made: Made, registry: Registry) -> None:
    stranger = Version(1, "transplant", "x", 1, "0" * 64, made.versions["vector"].created, {})
    with pytest.raises(RegistryError, match="no transplant named 'x'"):
        publications(registry, stranger)
