"""Reading a spec: YAML with line numbers, settings from the command line, one sentence for each mistake."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from contrans.errors import SpecError
from flows.spec.model import PipelineSpec
from flows.spec.presets import with_preset
from flows.spec.sentences import Place, sentence

_SUFFIXES = (".yaml", ".yml")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEPLOYED = Path("deployments") / "pipelines"


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
    """Reads a spec and checks it.

    A model, contrast set or corpus whose path begins with "./" or "../" lies relative to the spec's own file;
    from an override, relative to the working folder.

    Args:
        spec: A path, or the bare name of a spec in `deployments/pipelines`.
        overrides: "key=value" each, such as "validate.random_draws=5"; the value is read as YAML.

    Raises:
        SpecError: The file or a setting is not valid; the message names the place, the key and the fix.
    """
    path = find_spec(spec)
    values, places = _read(path)
    values.setdefault("name", path.stem)
    _anchor(values, path.parent)
    for override in overrides:
        _override(values, places, override)
    try:
        return PipelineSpec.model_validate(with_preset(values))
    except ValidationError as error:
        raise SpecError(sentence(error, places, Place(str(path)))) from error


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
        return str((folder / value).resolve()) if isinstance(value, str) and value.startswith(("./", "../")) else value

    for key in ("source", "target"):
        if key in values:
            values[key] = anchored(values[key])
    if isinstance(values.get("concepts"), list):
        values["concepts"] = [anchored(value) for value in values["concepts"]]
    for part, keys in (("corpus", ("name",)), ("validate", ("data", "classifier"))):
        inner = values.get(part)
        if isinstance(inner, dict):
            values[part] = inner | {key: anchored(inner[key]) for key in keys if key in inner}


def _override(values: dict[str, Any], places: dict[tuple[str, ...], Place], override: str) -> None:
    key, equals, text = override.partition("=")
    where = Place(f"--set {override}")
    parts = tuple(key.strip().split("."))
    if not equals or not all(parts):
        raise SpecError(f"{where}: a setting is key=value, such as validate.random_draws=5.")
    try:
        value = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise SpecError(f"{where}: the value is not valid YAML; quote it.") from error
    into = values
    for depth, part in enumerate(parts[:-1], 1):
        places[parts[:depth]] = where
        inner = into.get(part)
        into[part] = dict(inner) if isinstance(inner, dict) else {}
        into = into[part]
    into[parts[-1]] = value
    for old in [p for p in places if p[: len(parts)] == parts]:
        del places[old]
    places[parts] = where
