"""A sweep: one spec run once for each value of a setting, or for each pair of values of two.

In YAML it is the key `sweep`, a mapping of dotted keys to lists of values: `sweep: {refine.pairs: [5, 10, 20]}`. What
the spec itself says of such a key does not count.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from contrans.errors import SpecError
from flows.spec.model import PipelineSpec
from flows.spec.sentences import Place, keys, nearest, place_of, shown

KEY = "sweep"
MOST_KEYS = 2
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Point:
    """One pipeline of a sweep.

    Attributes:
        values: the swept settings, by their dotted keys.
        spec: the pipeline.
    """

    values: dict[str, Any]
    spec: PipelineSpec

    @property
    def label(self) -> str:
        """Its settings as people write them."""
        return label_of(self.values)


@dataclass(frozen=True)
class Sweep:
    """The pipelines of a spec file: one without values if the file has no sweep.

    Attributes:
        name: of the spec.
        axes: the values of each swept key; empty without a sweep.
        points: the pipelines; the last key's values change first.
    """

    name: str
    axes: dict[str, list[Any]]
    points: tuple[Point, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The swept keys."""
        return tuple(self.axes)

    @property
    def many(self) -> bool:
        """Whether the file asks for several pipelines, be it that one came of it."""
        return bool(self.axes)

    @property
    def spec(self) -> dict[str, Any]:
        """What all points share, every default filled in, and the sweep: as a spec file would say it."""
        return {**self.shared, KEY: self.axes}

    @property
    def shared(self) -> dict[str, Any]:
        """What all points share, every default filled in."""
        shared = _shared([point.spec.canonical() for point in self.points])
        return {"name": self.name, **{k: v for k, v in shared.items() if k != "name"}}


def label_of(values: Mapping[str, Any]) -> str:
    """Settings as people write them: "refine.pairs=5"."""
    return ", ".join(f"{key}={'null' if value is None else value}" for key, value in values.items())


def axes_of(swept: Any, places: Mapping[tuple[str, ...], Place], whole: Place) -> dict[str, list[Any]]:
    """Checks what stands under `sweep`: the keys and that each has values; the values are left to the spec's own check.

    Args:
        swept: the value of the key `sweep`.
        places: where each key was written.
        whole: where the spec as a whole is.

    Raises:
        SpecError: it is no mapping, has more than two keys, a key that cannot be swept, or a list that is none.
    """
    if swept is None:
        return {}
    all_of_it = place_of((KEY,), places, whole)
    if not isinstance(swept, dict):
        raise SpecError(f"{all_of_it}: {KEY} must be a mapping of keys to lists of values, not {shown(swept)}.")
    for key, values in swept.items():
        where = place_of((KEY, str(key)), places, whole)
        _check_key(str(key), where)
        if not isinstance(values, list):
            raise SpecError(f"{where}: {KEY}.{key} must be a list of values, not {shown(values)}.")
        if not values:
            raise SpecError(f"{where}: {KEY}.{key} must not be empty; name at least one value, or leave the key out.")
        twice = [value for i, value in enumerate(values) if value in values[:i]]
        if twice:
            raise SpecError(f"{where}: {KEY}.{key} names {shown(twice[0])} twice; keep it once.")
    if len(swept) > MOST_KEYS:
        raise SpecError(f"{all_of_it}: {KEY} has {len(swept)} keys; take at most {MOST_KEYS}, and set the others.")
    return {str(key): list(values) for key, values in swept.items()}


def settings_of(axes: Mapping[str, Sequence[Any]]) -> list[dict[tuple[str, int], Any]]:
    """Every combination of values, each by its key and its place in that key's list."""
    chosen = [[((key, i), value) for i, value in enumerate(values)] for key, values in axes.items()]
    return [dict(combination) for combination in product(*chosen)]


def point_name(name: str, values: Mapping[str, Any]) -> str:
    """The name of a point's pipeline: the spec's, then the keys' last parts and their values, safe in a path."""
    parts = [f"{key.rpartition('.')[2]}-{_short(value)}" for key, value in values.items()]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", ".".join(parts))
    return f"{name}.{safe}"[:_LONGEST_NAME].rstrip("-.")


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(_short, value))
    return "null" if value is None else str(value).rstrip("/").rpartition("/")[2]


def _check_key(key: str, where: Place) -> None:
    path = tuple(key.split("."))
    every = keys()
    if path == (KEY,):
        raise SpecError(f"{where}: {KEY} cannot be swept; name the keys of the spec that change.")
    if path not in every:
        raise SpecError(f"{where}: there is no key {key}; {nearest(path, every)}")
    if path == ("name",):
        raise SpecError(f"{where}: name cannot be swept; every point is called after its values.")
    inner = [".".join(other) for other in every if other[:-1] == path]
    if inner:
        raise SpecError(f"{where}: {key} has keys of its own; sweep over one of them, such as {inner[0]}.")


def _shared(specs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in specs[0].items():
        others = [spec[key] for spec in specs]
        if isinstance(value, Mapping):
            found[key] = _shared(others)
        elif all(other == value for other in others):
            found[key] = value
    return found
