"""A spec's values and where each was written: read from YAML, then changed by settings.

Settings come from variables of the environment such as `CONTRANS_SET__validate__random_draws=5`, in which "__" stands
for the points of the key, and from `--set validate.random_draws=5` on the command line, which win over them.
"""

import os
from pathlib import Path
from typing import Any

import yaml

from contrans.errors import SpecError
from flows.spec.sentences import Place
from flows.spec.sweeps import KEY

PREFIX = "CONTRANS_SET__"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INSTEAD = {"source": "sources", "target": "targets", "sources": "source", "targets": "target"}
Places = dict[tuple[str, ...], Place]


def read_yaml(path: Path) -> tuple[dict[str, Any], Places]:
    """The values of a YAML file, and the line of each key.

    Raises:
        SpecError: It cannot be read, is not valid, holds no mapping, or a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_LOADER)
        values = yaml.load(text, Loader=_LOADER)
    except OSError as error:
        raise SpecError(f"The spec {path} cannot be read ({error.strerror}); check your rights on it.") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"The spec {path} is not UTF-8 text; save it as such.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = Place(str(path), mark.line + 1 if mark else None)
        problem = getattr(error, "problem", None) or "something that cannot be parsed"
        raise SpecError(f"{where}: this is not valid YAML ({problem}); correct the line.") from error
    if values is None:
        raise SpecError(f"The spec {path} is empty; it needs at least `source:` and `target:`.")
    if not isinstance(values, dict):
        raise SpecError(f"The spec {path} must be a mapping of keys to values, such as `source: org/model`.")
    places: Places = {}
    _note_places(node, (), str(path), places)
    return values, places


def environment_settings() -> list[str]:
    """What the environment sets, each as it is written there: "CONTRANS_SET__seed=3"."""
    return [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.upper().startswith(PREFIX)]


def override(values: dict[str, Any], places: Places, setting: str) -> None:
    """Changes a value.

    Args:
        values: Of the spec; a model that is set takes the place of the list of models, and the other way round.
        places: Where each key was written.
        setting: As it was written: "--set key=value", or a variable of the environment.

    Raises:
        SpecError: It is no setting, or its value is not valid YAML.
    """
    where = Place(setting)
    key, equals, text = setting.removeprefix("--set ").partition("=")
    key = key.strip()
    if key.upper().startswith(PREFIX):
        # some systems know capitals alone, and no key of a spec has any
        key = key[len(PREFIX) :].lower().replace("__", ".")
    if not equals or not all(key.split(".")):
        raise SpecError(f"{where}: a setting is key=value, such as validate.random_draws=5.")
    try:
        value = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise SpecError(f"{where}: the value is not valid YAML; quote it.") from error
    swept_key = key.removeprefix(f"{KEY}.")
    # keys under `sweep` are dotted themselves
    path = tuple(key.split(".")) if swept_key == key else (KEY, swept_key)
    put(values, places, path, value, where)
    if swept_key in _INSTEAD:
        values.pop(_INSTEAD[swept_key], None)
    swept = values.get(KEY)
    if isinstance(swept, dict) and swept_key == key:
        gone = (key, _INSTEAD.get(key))
        values[KEY] = {k: v for k, v in swept.items() if k not in gone and not str(k).startswith(f"{key}.")}


def put(values: dict[str, Any], places: Places, path: tuple[str, ...], value: Any, where: Place) -> None:
    """Puts a value into nested settings, and notes where it was written."""
    into = values
    for depth, part in enumerate(path[:-1], 1):
        places[path[:depth]] = where
        inner = into.get(part)
        into[part] = dict(inner) if isinstance(inner, dict) else {}
        into = into[part]
    into[path[-1]] = value
    for old in [p for p in places if p[: len(path)] == path]:
        del places[old]
    places[path] = where


def _note_places(node: Any, at: tuple[str, ...], file: str, places: Places) -> None:
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            places[*at, str(i)] = Place(file, item.start_mark.line + 1)
            _note_places(item, (*at, str(i)), file, places)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*at, str(key.value))
            place = Place(file, key.start_mark.line + 1)
            if inner in places:
                # YAML itself would silently take the last
                raise SpecError(f"{place}: the key {'.'.join(inner)} stands there twice; keep one.")
            places[inner] = place
            _note_places(value, inner, file, places)
