"""Reading a spec: from its file, the environment and the command line to the pipelines that it asks for."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contrans.errors import SpecError
from flows.spec.corpora import corpora_of, with_corpus
from flows.spec.file import CORPORA
from flows.spec.matrix import Cell, Matrix, cell_name, cells_of, grid_of
from flows.spec.model import PipelineSpec
from flows.spec.presets import with_preset
from flows.spec.sentences import Place, place_of, sentence
from flows.spec.settings import environment_settings, override, put, read_yaml
from flows.spec.sweeps import KEY, Point, Sweep, axes_of, point_name, settings_of

_DEPLOYED = Path("deployments") / "pipelines"
_PATHS = (
    "source",
    "target",
    "sources",
    "targets",
    "concepts",
    "corpus.name",
    "validate.data",
    "validate.classifier",
    "validate.task_dir",
)
"""Settings that may be paths."""
_RULES = ("include", "exclude")


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
        overrides: "key=value" each, such as "validate.random_draws=5"; the value is read as YAML. They win over
            variables of the environment, see `flows.spec.settings`.

    Raises:
        SpecError: The file or a setting is not valid, the message names the place, the key and the fix; or it asks for
            several pipelines.
    """
    sweep = load_sweep(spec, overrides)
    if isinstance(sweep, Matrix):
        raise SpecError(f"{spec} has many models; read it with load_sweep, or set one source and one target.")
    if sweep.many:
        raise SpecError(f"{spec} sweeps over {' and '.join(sweep.keys)}; read it with load_sweep, or set sweep=null.")
    return sweep.points[0].spec


def load_sweep(spec: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a spec that may have a `sweep` or many models, and checks every pipeline of it.

    Args:
        spec: As for `load_spec`.
        overrides: As for `load_spec`; one of a swept key takes that key out of the sweep, one of `source` takes
            `sources` out.

    Returns:
        Its pipelines; a `Matrix` where the spec has `sources` or `targets`.

    Raises:
        SpecError: As for `load_spec`.
    """
    path = find_spec(spec)
    values, places = read_yaml(path)
    values.setdefault("name", path.stem)
    _anchor(values, path.parent)
    for setting in environment_settings():
        override(values, places, setting)
    for text in overrides:
        override(values, places, f"--set {text}")
    reader = _Reader(values, places, Place(str(path)))
    return reader.matrix() if reader.grid is not None else reader.sweep()


class _Reader:
    """Makes pipelines of a spec's values: the same for each setting of the sweep and each cell of the matrix."""

    def __init__(self, values: dict[str, Any], places: dict[tuple[str, ...], Place], whole: Place) -> None:
        self.values, self.places, self.whole = values, places, whole
        self.corpora = corpora_of(values.pop(CORPORA, None), values.get("preset"), places, whole)
        self.grid = grid_of(values, places, whole)
        self.axes = axes_of(values.pop(KEY, None), places, whole)
        self.name = str(values["name"])

    def sweep(self) -> Sweep:
        """One pipeline, or one for each setting."""
        points = []
        for own, at, chosen in self._settings():
            if chosen and isinstance(own["name"], str):
                own["name"] = point_name(own["name"], chosen)
            points.append(Point(chosen, self._checked(own, at)))
        return Sweep(self.name, self.axes, tuple(points))

    def matrix(self) -> Matrix:
        """A pipeline for each cell and setting, those of a cell one after another."""
        assert self.grid is not None
        found: dict[tuple[object, ...], list[Cell]] = {}
        for own, at, chosen in self._settings():
            for cell, family in cells_of(self.grid, own, at, self.whole):
                settings = {**own, **cell}
                if isinstance(own["name"], str):
                    settings["name"] = cell_name(own["name"], settings, family, chosen)
                made = Cell(chosen, self._checked(settings, at), family)
                found.setdefault((made.spec.source, made.spec.target, family), []).append(made)
        cells = tuple(cell for alike in found.values() for cell in alike)
        return Matrix(self.name, self.axes, cells, self.grid)

    def _settings(self) -> Iterator[tuple[dict[str, Any], dict[tuple[str, ...], Place], dict[str, Any]]]:
        """The spec's values and places with each setting of the sweep put in, and the setting."""
        for setting in settings_of(self.axes):
            own, at = (deepcopy(self.values), dict(self.places)) if setting else (dict(self.values), self.places)
            for (key, index), value in setting.items():
                where = place_of((KEY, key, str(index)), self.places, self.whole)
                put(own, at, tuple(key.split(".")), value, where)
            yield own, at, {key: value for (key, _), value in setting.items()}

    def _checked(self, values: dict[str, Any], places: Mapping[tuple[str, ...], Place]) -> PipelineSpec:
        try:
            whole = with_preset(with_corpus(values, self.corpora, places, self.whole))
            return PipelineSpec.model_validate(whole)
        except ValidationError as error:
            raise SpecError(sentence(error, places, self.whole)) from error


def _anchor(values: dict[str, Any], folder: Path) -> None:
    """Makes paths that begin with a dot absolute: they lie relative to the spec's folder."""

    def anchored(value: Any) -> Any:
        if isinstance(value, list):
            return [anchored(one) for one in value]
        return str((folder / value).resolve()) if isinstance(value, str) and value.startswith(("./", "../")) else value

    def anchor(into: Any, *keys: str) -> None:
        for key in keys:
            if isinstance(into, dict) and key in into:
                into[key] = anchored(into[key])

    for path in _PATHS:
        part, _, key = path.rpartition(".")
        anchor(values.get(part) if part else values, key)
    named, rules = values.get(CORPORA), [values.get(key) for key in _RULES]
    for corpus in named.values() if isinstance(named, dict) else ():
        anchor(corpus, "name")
    for rule in [rule for listed in rules if isinstance(listed, list) for rule in listed]:
        anchor(rule, "source", "target", "concepts")
    anchor(values.get(KEY), *_PATHS)
