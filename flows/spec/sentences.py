"""From pydantic's findings to one sentence that names the place, the key and the fix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flows.spec.file import FileKeys
from flows.spec.model import PipelineSpec

_KINDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}


@dataclass(frozen=True)
class Place:
    """Where a setting was written: a file and line, or an option of the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}, line {self.line}"


def sentence(
    error: ValidationError, places: Mapping[tuple[str, ...], Place], whole: Place, *, at: tuple[str, ...] = ()
) -> str:
    """Says what is wrong first, and how many further mistakes there are.

    Args:
        error: Of validating a spec or a part of it.
        places: Where each key was written.
        whole: Where the spec as a whole is.
        at: Where in the spec the part stands.
    """
    # An unknown key first: a missing one is often the same mistake, seen from the other side.
    found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = found[0]
    loc = (*at, *(str(part) for part in first["loc"]))
    where = place_of(loc, places, whole)
    rest = len(found) - 1
    more = f" ({rest} more {'mistake' if rest == 1 else 'mistakes'} after this one.)" if rest else ""
    return f"{where}: {_said(first, loc)}{more}"


def place_of(loc: tuple[str, ...], places: Mapping[tuple[str, ...], Place], whole: Place) -> Place:
    """Where a key was written, or else the innermost part that holds it."""
    return next((places[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in places), whole)


def _said(error: ErrorDetails, loc: tuple[str, ...]) -> str:
    key, kind, context = _dotted(loc), error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"there is no key {key}; {nearest(loc)}"
    if kind == "missing":
        example = ": pypi:smollm2-135m-instruct" if loc in {("source",), ("target",)} else ""
        return f"the key {key} is missing; add `{loc[-1]}{example or ': …'}`."
    if kind == "literal_error":
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        close = get_close_matches(str(error["input"]), choices.split(", "), n=1)
        hint = f"did you mean {close[0]}?" if close else f"use {_either(choices.split(', '))}."
        return f"{key} cannot be {shown(error['input'])}; {hint}"
    if kind == "value_error":
        said = str(context["error"])
        tail = "." if ";" in said or ":" in said else f", not {shown(error['input'])}."
        return f"{key} {said}{tail}"
    if kind in ("too_short", "string_too_short"):
        return f"{key} must not be empty; name at least one, or leave the key out."
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"{key} must be {words} {context[bound]:,.10g}, not {shown(error['input'])}."
    if kind == "string_pattern_mismatch":
        fix = {
            "compute.device": "auto, cpu, mps, cuda or cuda:N",
            "name": "letters, digits, '.', '_' and '-'",
        }
        return f"{key} cannot be {shown(error['input'])}; use {fix.get(key, context['pattern'])}."
    said = _KINDS.get(kind, error["msg"][:1].lower() + error["msg"][1:])
    return f"{key} {said}, not {shown(error['input'])}."


def _dotted(loc: tuple[str, ...]) -> str:
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in loc).lstrip(".") or "the spec"


def _either(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def shown(value: Any) -> str:
    """A value as a sentence names it."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def keys(model: type[BaseModel] = PipelineSpec, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of all keys that a spec may have, those of the inner parts included.

    A part under names of the user's own has "*" in their place; the numbers of a list are left out.
    """
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        path = (*at, field.alias or name)
        found.append(path)
        for inner, below in parts_of(field.annotation):
            found += keys(inner, (*path, *below))
    return found


def parts_of(annotation: Any) -> list[tuple[type[BaseModel], tuple[str, ...]]]:
    """The parts that a key's value may be or hold, each with what stands between."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, ())]
    origin = get_origin(annotation)
    if origin not in (Union, UnionType, list, dict):
        return []
    between = ("*",) if origin is dict else ()
    return [(part, (*between, *below)) for inner in get_args(annotation) for part, below in parts_of(inner)]


def nearest(loc: tuple[str, ...], every: Sequence[tuple[str, ...]] | None = None) -> str:
    """What is likely meant by a key that does not exist, as the end of a sentence.

    Args:
        loc: The key.
        every: The keys that it may be meant for; all of a spec file if not given.
    """
    every = every or [*keys(), *keys(FileKeys)]
    here = tuple(part for part in loc[:-1] if not part.isdigit())
    siblings = [path[-1] for path in every if _alike(path[:-1], here)]
    close = get_close_matches(loc[-1], siblings, n=1)
    if close:
        return f"did you mean {_dotted((*loc[:-1], close[0]))}?"
    by_leaf = {path[-1]: path for path in reversed(every) if "*" not in path}
    close = get_close_matches(loc[-1], by_leaf, n=1, cutoff=0.8)
    if close:
        return f"did you mean {'.'.join(by_leaf[close[0]])}?"
    return f"the keys there are {', '.join(siblings)}."


def _alike(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    return len(pattern) == len(path) and all(a in ("*", b) for a, b in zip(pattern, path, strict=True))
