"""A matrix: many pairs of models from one spec, a cell for each pair and each family of concepts.

A cell is a pipeline. Concepts of one family stand in one cell, since they are judged by whether the model tells them
apart; under a protocol that judges a single concept each has its own. With a `sweep` there is a cell for each setting.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from contrans.errors import SpecError
from contrans.models.reference import short_name
from flows.spec.file import MATRIX_KEYS, MatrixKeys, Rule
from flows.spec.sentences import Place, place_of, sentence
from flows.spec.sweeps import KEY, Point, Sweep, label_of, point_name

ONE_OF_MANY = {"source": "sources", "target": "targets"}
_DEFAULT_CONCEPTS = ["emotion/*"]
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Cell(Point):
    """One pipeline of a matrix; its `values` are the swept settings alone.

    Attributes:
        family: which of the pair's families of concepts it is about, from 0; None where there is one.
    """

    family: int | None = None

    @property
    def label(self) -> str:
        """Its models, and what else sets it apart, as people write them."""
        pair = f"{short_name(self.spec.source)} → {short_name(self.spec.target)}"
        more = [", ".join(self.spec.concepts)] if self.family is not None else []
        more += [label_of(self.values)] if self.values else []
        return f"{pair} ({'; '.join(more)})" if more else pair


@dataclass(frozen=True)
class Matrix(Sweep):
    """The cells of a spec file with `sources` or `targets`; `points` holds them, the swept values change first.

    Attributes:
        grid: what the file says of its cells.
    """

    grid: MatrixKeys = field(default_factory=MatrixKeys)

    @property
    def many(self) -> bool:
        """A matrix always asks for several pipelines, be it that one came of it."""
        return True

    @property
    def spec(self) -> dict[str, Any]:
        """What all cells share, every default filled in, and what makes the matrix: as a spec file would say it."""
        grid = {key: value for key, value in self.grid.canonical().items() if value not in (None, [])}
        return {**self.shared, **grid, **({KEY: self.axes} if self.axes else {})}


def grid_of(values: dict[str, Any], places: Mapping[tuple[str, ...], Place], whole: Place) -> MatrixKeys | None:
    """Takes the keys of a matrix out of a spec's values; None if it has neither `sources` nor `targets`.

    Args:
        values: the spec as its file says it.
        places: where each key was written.
        whole: where the spec as a whole is.

    Raises:
        SpecError: a key has a value that it cannot have, or a model is named in two ways.
    """
    given = {key: values.pop(key) for key in MATRIX_KEYS if key in values}
    try:
        grid = MatrixKeys.model_validate(given)
    except ValidationError as error:
        raise SpecError(sentence(error, places, whole)) from error
    asked = [many for many in ONE_OF_MANY.values() if getattr(grid, many) is not None]
    if not asked:
        if given:
            key = next(iter(given))
            where = place_of((key,), places, whole)
            raise SpecError(f"{where}: {key} is about a matrix of models; name its models under sources or targets.")
        return None
    axes = values.get(KEY)
    swept = axes if isinstance(axes, dict) else {}
    for one, many in ONE_OF_MANY.items():
        if many in asked and (one in values or one in swept):
            where = place_of((one,) if one in values else (KEY, one), places, whole)
            also = one if one in values else f"{KEY}.{one}"
            raise SpecError(f"{where}: the spec has both {also} and {many}; keep one of them.")
    return grid


def cells_of(
    grid: MatrixKeys, values: Mapping[str, Any], places: Mapping[tuple[str, ...], Place], whole: Place
) -> Iterator[tuple[dict[str, Any], int | None]]:
    """What sets each cell apart, as settings of a spec, and its `family`.

    The settings are `source`, `target`, and `concepts` where they are not all that the spec names.

    Args:
        grid: the keys of the matrix.
        values: what the cell's spec says otherwise.
        places: where each key was written.
        whole: where the spec as a whole is.

    Raises:
        SpecError: a rule matches nothing, or no cell is left.
        TextError: a contrast set that must be looked at cannot be read.
    """
    sources, targets = (getattr(grid, many) or [values.get(one)] for one, many in ONE_OF_MANY.items())
    written = values.get("concepts", _DEFAULT_CONCEPTS)
    protocol = _protocol(values)
    groups = _groups(written, protocol)
    used: set[tuple[str, int]] = set()
    any_left = False
    for source, target in _pairs(sources, targets, grid.directions):
        for family, group in enumerate(groups):
            names = _kept(grid, source, target, group, used)
            if not names:
                continue
            any_left = True
            several = len(groups) > 1
            concepts = {"concepts": names} if several or names != group else {}
            models = {side: model for side, model in (("source", source), ("target", target)) if model is not None}
            yield {**models, **concepts}, family if several else None
    for key in ("include", "exclude"):
        for i, _ in enumerate(getattr(grid, key)):
            if (key, i) not in used:
                where = place_of((key, str(i)), places, whole)
                raise SpecError(
                    f"{where}: {key}[{i}] matches no cell; compare it with sources, targets and concepts, and with "
                    f"directions, which is {grid.directions}."
                )
    if not any_left:
        where = place_of(("sources",) if grid.sources else ("targets",), places, whole)
        raise SpecError(
            f"{where}: the matrix has no cell; change directions, which is {grid.directions}, or include and exclude."
        )


def cell_name(name: str, settings: Mapping[str, Any], family: int | None, chosen: Mapping[str, Any]) -> str:
    """The name of a cell's pipeline: the spec's, the models' short names, the family, the swept values."""
    models = "-".join(short_name(str(settings.get(side))) for side in ("source", "target"))
    concepts = "" if family is None else f".{short_name(str(settings['concepts'][0]))}"
    whole = f"{name}.{models}{concepts}"
    return (point_name(whole, chosen) if chosen else whole)[:_LONGEST_NAME].rstrip("-.")


def _pairs(sources: Sequence[Any], targets: Sequence[Any], which: str) -> Iterator[tuple[Any, Any]]:
    made: set[tuple[Any, Any]] = set()
    for source in sources:
        for target in targets:
            if which != "all" and source == target:
                continue
            if which == "one" and (target, source) in made:
                continue
            made.add((source, target))
            yield source, target


def _kept(grid: MatrixKeys, source: Any, target: Any, group: list[str], used: set[tuple[str, int]]) -> list[str]:
    """The concepts of a cell that the rules leave; notes which rules had a say."""

    def meant(key: str, rules: Sequence[Rule]) -> set[str]:
        found: set[str] = set()
        for i, rule in enumerate(rules):
            if _is(source, rule.source) and _is(target, rule.target):
                names = [n for n in group if not rule.concepts or any(_is_concept(n, p) for p in rule.concepts)]
                found.update(names)
                if names:
                    used.add((key, i))
        return found

    wanted = meant("include", grid.include) if grid.include else set(group)
    unwanted = meant("exclude", grid.exclude)
    return [name for name in group if name in wanted and name not in unwanted]


def _is(reference: Any, pattern: str) -> bool:
    text = str(reference)
    return fnmatchcase(text, pattern) or fnmatchcase(short_name(text), pattern.lower())


def _is_concept(name: str, pattern: str) -> bool:
    last = Path(name).stem if name.endswith((".yaml", ".yml")) else name.rpartition("/")[2]
    return fnmatchcase(name, pattern) or fnmatchcase(last, pattern)


def _groups(written: Any, protocol: str) -> list[list[str]]:
    """Concepts that one pipeline can judge together; as they are written where that is not for us to say."""
    if not isinstance(written, list) or not all(isinstance(name, str) for name in written) or not written:
        return [written]
    return [list(group) for group in _families(tuple(written), protocol)]


@cache
def _families(written: tuple[str, ...], protocol: str) -> tuple[tuple[str, ...], ...]:
    from contrans.concepts.contrast import contrast_set

    names = list(dict.fromkeys(name for pattern in written for name in _names(pattern)))
    if protocol != "emotion":
        return tuple((name,) for name in names)
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        groups.setdefault(contrast_set(name).labels, []).append(name)
    return tuple(map(tuple, groups.values()))


def _names(pattern: str) -> list[str]:
    from contrans.concepts.contrast import contrast_set_names

    if pattern.endswith("/*"):
        return [name for name in contrast_set_names() if name.startswith(pattern[:-1])] or [pattern]
    if "*" in pattern and pattern.endswith((".yaml", ".yml")):
        return sorted(str(path) for path in Path(pattern).parent.glob(Path(pattern).name)) or [pattern]
    return [pattern]


def _protocol(values: Mapping[str, Any]) -> str:
    judged = values.get("validate")
    return str(judged.get("protocol", "emotion")) if isinstance(judged, Mapping) else "emotion"
