"""The JSON schema of a spec file, for editors: keys, types, defaults, and what each key means.

Every pipeline that a valid file asks for also keeps rules that no schema can tell, such as that a mix has rows.
"""

import inspect
import re
from copy import deepcopy
from typing import Any

from pydantic import BaseModel

from flows.spec.file import FileKeys
from flows.spec.model import PipelineSpec
from flows.spec.sentences import parts_of
from flows.spec.sweeps import MOST_KEYS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ATTRIBUTE = re.compile(r"^    (\w+): (.*)$")
_MANY = {"source": "sources", "target": "targets"}


def spec_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of a whole spec file: a pipeline's settings, a matrix, a sweep, named corpora."""
    spec, file = (model.model_json_schema(by_alias=True) for model in (PipelineSpec, FileKeys))
    definitions = {**file.pop("$defs"), **spec.pop("$defs")}
    for model in _models(PipelineSpec) | _models(FileKeys):
        where = {PipelineSpec: spec, FileKeys: file}.get(model) or definitions[model.__name__]
        _describe(where, model)
    properties = {**spec["properties"], **file["properties"]}
    properties["sweep"] = {**properties["sweep"], "anyOf": [_sweep(spec, definitions), {"type": "null"}]}
    return {
        "$schema": DIALECT,
        "title": "ConTrans pipeline spec",
        "description": "What `contrans run`, `contrans plan` and `contrans study` read.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "allOf": [_named_once(one, many) for one, many in _MANY.items()],
        "$defs": definitions,
    }


def attribute_docs(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring of a part of the spec says of each field, by the field's name in Python."""
    found: dict[str, str] = {}
    name = None
    lines = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")[2].splitlines()
    for line in lines:
        match = _ATTRIBUTE.match(line)
        if match:
            name = match[1]
            found[name] = match[2].strip()
        elif name is not None and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    schema.pop("title", None)
    schema["description"] = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    docs = {
        key: text
        for base in reversed(model.__mro__)
        if issubclass(base, BaseModel)
        for key, text in attribute_docs(base).items()
    }
    for name, field in model.model_fields.items():
        property_ = schema["properties"][field.alias or name]
        property_.pop("title", None)
        if name in docs:
            property_["description"] = docs[name][:1].upper() + docs[name][1:]


def _models(model: type[BaseModel]) -> set[type[BaseModel]]:
    inner = [part for field in model.model_fields.values() for part, _ in parts_of(field.annotation)]
    return {model, *(found for part in inner for found in _models(part))}


def _sweep(spec: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Every setting by its dotted key, with a list of what it may be."""

    def lists(schema: dict[str, Any], at: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in schema["properties"].items():
            references = [part["$ref"] for part in (value, *value.get("anyOf", ())) if "$ref" in part]
            if references:
                found |= lists(definitions[references[0].rpartition("/")[2]], f"{at}{key}.")
            elif f"{at}{key}" != "name":
                one = {k: v for k, v in deepcopy(value).items() if k not in ("default", "description")}
                found[f"{at}{key}"] = {"type": "array", "items": one, "minItems": 1, "uniqueItems": True}
                if "description" in value:
                    found[f"{at}{key}"]["description"] = value["description"]
        return found

    return {
        "type": "object",
        "properties": lists(spec),
        "additionalProperties": False,
        "minProperties": 0,
        "maxProperties": MOST_KEYS,
    }


def _named_once(one: str, many: str) -> dict[str, Any]:
    """A model is named alone, or swept over, or as a list of many, and a list stands alone."""
    swept = {"properties": {"sweep": {"type": "object", "required": [one]}}, "required": ["sweep"]}
    alone: dict[str, Any] = {"anyOf": [{"required": [one]}, swept]}
    listed = {"properties": {many: {"type": "array"}}, "required": [many]}
    return {"oneOf": [alone, listed]}
