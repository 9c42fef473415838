"""Reading a spec: YAML with line numbers, settings from the command line, one sentence for each mistake."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from contrans.errors import SpecError
from flows.spec.model import PipelineSpec
from flows.spec.presets import with_preset
from flows.spec.sentences import Place, place_of, sentence
from flows.spec.sweeps import KEY, Point, Sweep, axes_of, point_name, settings_of

_SUFFIXES = (".yaml", ".yml")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEPLOYED = Path("deployments") / "pipelines"
_PATHS = ("source", "target", "concepts", "corpus.name", "validate.data", "validate.classifier", "validate.task_dir")
"""Settings that may be paths."""


def shipped_specs() -> dict[str, Path]:
    """Specs that need no path: those in `deployments/pipelines`, here or beside the package."""
    places = (Path(__file__).resolve().parents[2] / _DEPLOYED, Path.cwd() / _DEPLOYED)
    return {path.stem: path for place in places for path in sorted(place.glob("*.yaml"))}


def find_spec(spec: str | Path) -> Path:
    """The file of a spec.

    Args:
        spec: A path, or the bare name of a spec in `deployments/pipelines`.

    Raises:
        SpecError: There is no such file; the nearest name is given.
    """
    path = Path(spec).expanduser()
    if path.is_file():
        return path
    shipped = shipped_specs()
    if str(spec) in shipped:
        return shipped[str(spec)]
    if path.is_dir():
        raise SpecError(f"{spec} is a folder; name the YAML file of a spec in it.")
    close = get_close_matches(path.stem, shipped, n=1)
    names = f"did you mean {close[0]}?" if close else f"the specs that ship are {', '.join(shipped) or 'none'}."
    raise SpecError(f"There is no spec {str(spec)!r}; name a YAML file, or {names}")


def load_spec(spec: str | Path, overrides: Sequence[str] = ()) -> PipelineSpec:
    """Reads the spec of one pipeline and checks it.

    A model, contrast set, corpus or data set whose path begins with "./" or "../" lies relative to the spec's own
    file; from an override, relative to the working folder.

    Args:
        spec: A path, or the bare name of a spec in `deployments/pipelines`.
        overrides: "key=value" each, such as "validate.random_draws=5"; the value is read as YAML.

    Raises:
        SpecError: The file or a setting is not valid, the message names the place, the key and the fix; or it has a
            sweep.
    """
    sweep = load_sweep(spec, overrides)
    if sweep.axes:
        raise SpecError(f"{spec} sweeps over {' and '.join(sweep.keys)}; read it with load_sweep, or set sweep=null.")
    return sweep.points[0].spec


def load_sweep(spec: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a spec that may have a `sweep`, see `flows.spec.sweeps`, and checks every pipeline of it.

    Args:
        spec: As for `load_spec`.
        overrides: As for `load_spec`; one of a swept key takes that key out of the sweep.

    Raises:
        SpecError: As for `load_spec`.
    """
    path = find_spec(spec)
    values, places = _read(path)
    values.setdefault("name", path.stem)
    _anchor(values, path.parent)
    for override in overrides:
        _override(values, places, override)
    whole = Place(str(path))
    axes = axes_of(values.pop(KEY, None), places, whole)
    if not axes:
        return Sweep(str(values["name"]), {}, (Point({}, _checked(values, places, whole)),))
    points = []
    for setting in settings_of(axes):
        own, at = deepcopy(values), dict(places)
        for (key, index), value in setting.items():
            where = place_of((KEY, key, str(index)), places, whole)
            _put(own, at, tuple(key.split(".")), value, where)
        chosen = {key: value for (key, _), value in setting.items()}
        if isinstance(own["name"], str):
            own["name"] = point_name(own["name"], chosen)
        points.append(Point(chosen, _checked(own, at, whole)))
    return Sweep(str(values["name"]), axes, tuple(points))


def _checked(values: dict[str, Any], places: Mapping[tuple[str, ...], Place], whole: Place) -> PipelineSpec:
    try:
        return PipelineSpec.model_validate(with_preset(values))
    except ValidationError as error:
        raise SpecError(sentence(error, places, whole)) from error


def _read(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], Place]]:
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
    places: dict[tuple[str, ...], Place] = {}
    _note_places(node, (), str(path), places)
    return values, places


def _note_places(node: Any, at: tuple[str, ...], file: str, places: dict[tuple[str, ...], Place]) -> None:
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


def _anchor(values: dict[str, Any], folder: Path) -> None:
    def anchored(value: Any) -> Any:
        if isinstance(value, list):
            return [anchored(one) for one in value]
        return str((folder / value).resolve()) if isinstance(value, str) and value.startswith(("./", "../")) else value

    for path in _PATHS:
        part, _, key = path.rpartition(".")
        into = values.get(part) if part else values
        if isinstance(into, dict) and key in into:
            into[key] = anchored(into[key])
    swept = values.get(KEY)
    if isinstance(swept, dict):
        values[KEY] = {key: anchored(value) if key in _PATHS else value for key, value in swept.items()}


def _override(values: dict[str, Any], places: dict[tuple[str, ...], Place], override: str) -> None:
    key, equals, text = override.partition("=")
    where = Place(f"--set {override}")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise SpecError(f"{where}: a setting is key=value, such as validate.random_draws=5.")
    try:
        value = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise SpecError(f"{where}: the value is not valid YAML; quote it.") from error
    swept_key = key.removeprefix(f"{KEY}.")
    # keys under `sweep` are dotted themselves
    path = tuple(key.split(".")) if swept_key == key else (KEY, swept_key)
    _put(values, places, path, value, where)
    swept = values.get(KEY)
    if isinstance(swept, dict):
        values[KEY] = {k: v for k, v in swept.items() if k != key and not str(k).startswith(f"{key}.")}


def _put(
    values: dict[str, Any],
    places: dict[tuple[str, ...], Place],
    path: tuple[str, ...],
    value: Any,
    where: Place,
) -> None:
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
