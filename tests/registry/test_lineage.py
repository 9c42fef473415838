import json
import random

import pytest

from contrans.errors import RegistryError
from registry import Registry, Version
from tests.registry.conftest import make_chain


def _tree(registry: Registry, version: Version | str, direction, depth: int | None = None) -> list[str]:
    steps = registry.lineage(version, direction, depth).walk(direction)
    return [
        "  " * step.depth + " ".join(filter(None, (step.role, step.version.name, "…" * step.repeated)))
        for step in steps
    ]


def test_up_from_a_validation_to_texts_and_models(registry: Registry) -> None:
    made = make_chain(registry)
    assert _tree(registry, made["validation"], "up") == [
        "anger/gemma-3/emotion",
        "  transplant anger/gemma-3",
        "    map smollm2/gemma-3",
        "      source smollm2",
        "      target gemma-3",
        "      texts corpus",
        "    target gemma-3 …",
        "    vector anger/smollm2",
        "      model smollm2 …",
        "      texts corpus …",
    ]


def test_down_from_a_text_set(registry: Registry) -> None:
    made = make_chain(registry)
    make_chain(registry, note="again")
    found = registry.lineage(made["texts"], "down")
    assert [str(version) for version in found.versions] == [
        "text_set:corpus@1",
        "vector:anger/smollm2@1",
        "map:smollm2/gemma-3@1",
        "transplant:anger/gemma-3@1",
        "validation:anger/gemma-3/emotion@1",
        "vector:anger/smollm2@2",
        "transplant:anger/gemma-3@2",
        "validation:anger/gemma-3/emotion@2",
    ]
    assert [str(child) for _, child in found.children(made["map"])] == [
        "transplant:anger/gemma-3@1",
        "transplant:anger/gemma-3@2",
    ]


def test_depth_and_both_ways(registry: Registry) -> None:
    made = make_chain(registry)
    assert _tree(registry, "anger", "up", 0) == ["anger/gemma-3"]
    assert len(_tree(registry, "anger", "up", 1)) == 4
    both = registry.lineage(made["vector"], "both", 1)
    assert {version.kind for version in both.versions} == {"model", "text_set", "vector", "transplant"}
    assert len(both.edges) == 3
    assert len(registry.lineage(made["vector"], "both").versions) == 5
    with pytest.raises(RegistryError, match="depth of -1"):
        registry.lineage("anger", "up", -1)
    with pytest.raises(RegistryError, match="no direction 'left'"):
        registry.lineage("anger", "left")  # type: ignore[arg-type]


def test_as_json(registry: Registry) -> None:
    found = registry.lineage(make_chain(registry)["vector"]).as_json()
    assert json.loads(json.dumps(found)) == found
    assert found["edges"] == [
        {"child": "vector:anger/smollm2@1", "parent": "model:smollm2@1", "role": "model"},
        {"child": "vector:anger/smollm2@1", "parent": "text_set:corpus@1", "role": "texts"},
    ]


def test_many_ways_to_the_same_version_are_walked_once(registry: Registry) -> None:
    """A ladder of 30 rungs has 2³⁰ ways from end to end."""
    left = right = registry.register("text_set", "t", manifest={"hash": "start"})
    for i in range(30):
        inputs = {"left": left, "right": right}
        left = registry.register("text_set", "t", manifest={"hash": f"left {i}"}, inputs=inputs)
        right = registry.register("text_set", "t", manifest={"hash": f"right {i}"}, inputs=inputs)
    assert len(registry.lineage(left, "up").versions) == 60
    assert len(registry.lineage(left, "up", 30).versions) == 60
    assert len(registry.lineage("t@1", "down").edges) == 30 * 4
    assert sum(not step.repeated for step in registry.lineage(left, "up").walk("up")) == 60


def test_what_was_made_with_something(registry: Registry) -> None:
    made = make_chain(registry)
    late = registry.register(
        "model", "smollm2", manifest={"reference": "org/SmolLM2", "revision": "r2", "fingerprint": "f2"}
    )
    again = registry.register("vector", "anger/smollm2", manifest={"concept": "anger"}, inputs={"model": late})

    def names(*version: Version | str, **what) -> list[str]:
        return [str(each) for each in registry.made_with(*version, **what)]

    assert names(made["map"]) == ["transplant:anger/gemma-3@1", "validation:anger/gemma-3/emotion@1"]
    assert names(made["map"], depth=1) == ["transplant:anger/gemma-3@1"]
    assert names(texts="ab", kind="transplant") == ["transplant:anger/gemma-3@1"]
    assert names(texts="ab", depth=1) == ["vector:anger/smollm2@1", "map:smollm2/gemma-3@1"]
    assert names(model="org/SmolLM2", revision="r2") == names(model="f2") == [str(again)]
    assert names(model="smollm2", kind="vector") == [str(made["vector"]), str(again)]
    for what, message in (
        ({}, "one thing"),
        ({"model": "m", "texts": "t"}, "one thing"),
        ({"revision": "r", "texts": "t"}, "name the model too"),
        ({"model": "org/SmolLM2", "revision": "r3"}, "no model 'org/SmolLM2' of revision 'r3'"),
        ({"texts": "00"}, "no set of texts with the hash '00'"),
        ({"texts": "ab", "kind": "x"}, "no kind 'x'"),
        ({"texts": "ab", "depth": -1}, "depth of -1"),
    ):
        with pytest.raises(RegistryError, match=message):
            registry.made_with(**what)


def test_what_is_stale(registry: Registry) -> None:
    made = make_chain(registry)
    assert registry.stale() == []
    texts = registry.register("text_set", "corpus", manifest={"hash": "cd"})
    found = registry.stale()
    assert [(str(each.version), each.role, each.direct) for each in found] == [
        ("vector:anger/smollm2@1", "texts", True),
        ("map:smollm2/gemma-3@1", "texts", True),
        ("transplant:anger/gemma-3@1", "texts", False),
        ("validation:anger/gemma-3/emotion@1", "texts", False),
    ]
    assert {(each.used, each.newest) for each in found} == {(made["texts"], texts)}
    assert str(found[0]) == (
        "vector:anger/smollm2@1 was made from text_set:corpus@1 (texts), of which corpus@2 is the newest"
    )
    assert "rests on" in str(found[2])
    vector = registry.register("vector", "anger/smollm2", manifest={"concept": "anger"}, inputs={"texts": texts})
    assert made["vector"] not in [each.version for each in registry.stale()]
    assert registry.stale(vector) == []
    stale = {(str(each.version), str(each.used), each.direct) for each in registry.stale(made["transplant"])}
    assert stale == {
        ("transplant:anger/gemma-3@1", "text_set:corpus@1", False),
        ("transplant:anger/gemma-3@1", "vector:anger/smollm2@1", True),
    }
    assert made["vector"] in [each.version for each in registry.stale(superseded=True)]


def test_stale_agrees_with_brute_force(sqlite_registry: Registry) -> None:
    """Over a random graph, against walking up from every version."""
    chance = random.Random(1)
    versions: list[Version] = []
    for i in range(60):
        chosen = chance.sample(versions, min(len(versions), chance.randint(0, 3)))
        inputs = {f"r{k}": version for k, version in enumerate(chosen)}
        name = f"n{chance.randint(0, 25)}"
        versions.append(sqlite_registry.register("text_set", name, manifest={"hash": str(i)}, inputs=inputs))
    newest = {version.name: version for version in versions}
    expected = {
        (version.id, used.id, newest[used.name].id)
        for version in newest.values()
        for used in sqlite_registry.lineage(version, "up").versions
        if used != version and newest[used.name] != used
    }
    found = sqlite_registry.stale()
    assert {(each.version.id, each.used.id, each.newest.id) for each in found} == expected
    assert len(expected) > 10
    for each in found:
        parents = [parent for _, parent in sqlite_registry.lineage(each.version, "up", 1).parents(each.version)]
        assert each.used in parents or not each.direct
