"""The JSON schema of spec files: what ships is valid, mistakes are not, and every key is explained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from flows.spec import PipelineSpec, shipped_specs
from flows.spec.file import FileKeys
from flows.spec.presets import PRESETS
from flows.spec.schema import attribute_docs, spec_schema
from flows.spec.sentences import keys

CHECK = Draft202012Validator(spec_schema())
PAIR: dict[str, Any] = {"source": "org/a", "target": "org/b"}
MANY: dict[str, Any] = {"sources": ["org/a", "org/b"], "target": "org/c"}


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(spec_schema())


@pytest.mark.parametrize("name", sorted(shipped_specs()))
def test_specs_that_ship_are_valid(name: str) -> None:
    CHECK.validate(yaml.safe_load(shipped_specs()[name].read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "more",
    [
        *({"preset": preset, **settings} for preset, settings in PRESETS.items()),
        {"blocks": {"source": "auto", "target": [3, 0.5]}},
        {"sweep": {"blocks.source": [3, 0.5, "auto"], "validate.doses": [[0.1], [0.2, 1]]}},
        {"sweep": None, "publish": None},
        {"publish": {"to": "me/{concept}", "if": "kl < 1", "private": True}},
        {"corpora": {"news": {"name": "n.txt"}}, "corpus": {"name": "news"}},
        {"compute": {"memory_gb": 3.5, "device": "cuda:1"}},
    ],
)
def test_what_a_spec_may_say_is_valid(more: dict[str, Any]) -> None:
    CHECK.validate({**PAIR, **more})
    CHECK.validate({**MANY, "directions": "both", "exclude": [{"source": "*", "concepts": ["anger"]}], **more})


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"source": "org/a"},
        {**PAIR, "sources": ["org/c"]},
        {**PAIR, "sead": 1},
        {**PAIR, "seed": "1"},
        {**PAIR, "validate": {"random_draws": 0}},
        {**PAIR, "validate": {"arms": ["sorcery"]}},
        {**PAIR, "blocks": {"source": 1.5}},
        {**PAIR, "blocks": {"source": "deep"}},
        {**PAIR, "compute": {"device": "gpu"}},
        {**PAIR, "sweep": {"refine": [1]}},
        {**PAIR, "sweep": {"refine.pairs": [1]}},
        {**PAIR, "sweep": {"refine.pairs": []}},
        {**PAIR, "sweep": {"seed": [1], "refine.pairs": [2], "blocks.tries": [3]}},
        {**PAIR, "publish": {"if": "kl < 1"}},
        {**MANY, "include": [{"sorce": "org/a"}]},
        {**MANY, "directions": "two"},
    ],
)
def test_mistakes_are_not_valid(spec: dict[str, Any]) -> None:
    assert not CHECK.is_valid(spec)


def test_a_swept_model_need_not_be_named() -> None:
    CHECK.validate({"target": "org/b", "sweep": {"source": ["org/a"]}})


def test_every_key_is_explained() -> None:
    schema = spec_schema()

    def explained(node: dict[str, Any], path: tuple[str, ...]) -> str | None:
        found = node
        for part in path:
            reference = next((p["$ref"] for p in (found, *found.get("anyOf", ())) if "$ref" in p), None)
            if "items" in found:
                reference = found["items"].get("$ref", reference)
            elif part == "*":
                found = found["additionalProperties"]
                continue
            if reference is not None:
                found = schema["$defs"][reference.rpartition("/")[2]]
            found = found["properties"][part]
        return found.get("description")

    for path in [*keys(PipelineSpec), *keys(FileKeys)]:
        assert path[-1] == "*" or explained(schema, path), path
    assert schema["properties"]["validate"]["description"] == "How the result is judged; `validate` in YAML."
    assert attribute_docs(FileKeys)["corpora"] == "settings of corpora by the names that `corpus.name` may have."


def test_the_command_prints_or_writes_it(typed: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, err = typed("schema")
    assert (code, err) == (0, "")
    assert json.loads(out) == spec_schema()
    assert typed("schema", "-o", tmp_path / "spec.json") == (0, "", "")
    assert json.loads((tmp_path / "spec.json").read_text()) == spec_schema()
    code, _, err = typed("schema", "-o", tmp_path / "none" / "spec.json")
    assert code == 2
    assert "cannot be written" in err
    assert "yaml-language-server" in typed("schema", "--help")[1]
