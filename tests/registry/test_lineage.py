import json

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
