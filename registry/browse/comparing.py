"""Versions side by side: their numbers with the difference to the first, cosines of their vectors, their settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from contrans.errors import RegistryError
from contrans.validation.row_table import MEAN, is_p_value
from contrans.validation.wording import shown, spoken
from registry.browse.facts import settings
from registry.browse.reading import Reader
from registry.browse.vectors import blocks_of, cosine
from registry.gates import CHOSEN_ON
from registry.records import Result, Version

MOST = 6
_ARMS = ("unsteered", "transplanted", "own")
_Key = tuple[str, str, str]


@dataclass(frozen=True)
class Cell:
    """A number, and how it differs from the first version's: "higher", "lower", "no difference" or ""."""

    text: str
    verdict: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a comparison; `differs` where its cells are not all alike."""

    name: str
    cells: tuple[Cell, ...]
    differs: bool = False


@dataclass(frozen=True)
class Compared:
    """Numbers, cosines to the first version by block, and settings, one cell for each version."""

    versions: tuple[Version, ...]
    numbers: tuple[Row, ...]
    cosines: tuple[Row, ...]
    settings: tuple[Row, ...]


def compare_versions(registry: Reader, references: Sequence[str]) -> Compared:
    """Compares versions with the first one.

    Raises:
        RegistryError: If there are fewer than two or more than `MOST`, or one does not exist.
    """
    versions = tuple(dict.fromkeys(registry.get(reference) for reference in references))
    if not 2 <= len(versions) <= MOST:
        raise RegistryError(f"{len(versions)} versions were named; compare two to {MOST} different ones.")
    measured = [_numbers(registry, version) for version in versions]
    keys = dict.fromkeys(key for numbers in measured for key in numbers)
    return Compared(
        versions,
        tuple(_number_row(key, [numbers.get(key) for numbers in measured]) for key in keys),
        _cosine_rows(registry, versions),
        _setting_rows([settings(version.manifest) for version in versions]),
    )


def difference(first: Result, other: Result) -> tuple[float, float] | None:
    """The 95 % interval of `other` − `first` from the interval of each; None where one has none.

    The square-and-add interval of Newcombe (1998, method 10) and Zou & Donner (2008): d ∓ √((θ₂ − l₂)² + (u₁ − θ₁)²).
    It takes the two for independent; versions scored on the same items differ by less than it allows for, so that a
    difference that it calls one is one.
    """
    ends = (first.value, first.low, first.high, other.value, other.low, other.high)
    if any(end is None for end in ends):
        return None
    value, low, high, value2, low2, high2 = (float(end) for end in ends if end is not None)
    apart = value2 - value
    return apart - sqrt((value2 - low2) ** 2 + (high - value) ** 2), apart + sqrt(
        (high2 - value2) ** 2 + (value - low) ** 2
    )


def _numbers(registry: Reader, version: Version) -> dict[_Key, Result]:
    """What validations say of a version on test, by protocol, arm and metric; its own concept before the mean."""
    found: dict[_Key, Result] = {}
    for validation in registry.validations(version):
        rows = [r for r in registry.results(validation) if r.split not in CHOSEN_ON and not is_p_value(r.metric)]
        for row in sorted(rows, key=lambda r: r.concept == MEAN):
            if row.arm in _ARMS:
                found.setdefault((row.protocol, row.arm, row.metric), row)
    return found


def _number_row(key: _Key, results: Sequence[Result | None]) -> Row:
    first = results[0]
    cells = []
    for i, result in enumerate(results):
        text = "–" if result is None else shown(result.value, result.low, result.high)
        verdict = ""
        if i and first is not None and result is not None and (ends := difference(first, result)) is not None:
            verdict = "higher" if ends[0] > 0 else "lower" if ends[1] < 0 else "no difference"
        cells.append(Cell(text, verdict))
    return Row(", ".join(map(spoken, key)), tuple(cells), any(cell.verdict in ("higher", "lower") for cell in cells))


def _cosine_rows(registry: Reader, versions: Sequence[Version]) -> tuple[Row, ...]:
    directions = [blocks_of(registry, version) for version in versions]
    every = sorted({block for blocks in directions for block in blocks})
    rows = []
    for block in every:
        first = directions[0].get(block)
        cells = []
        for blocks in directions:
            other = blocks.get(block)
            alike = first is not None and other is not None and first.shape == other.shape
            cells.append(Cell(f"{cosine(first, other):.3f}" if alike else "–" if other is None else "another space"))
        if first is None:
            cells = [Cell("–" if block not in blocks else "only here") for blocks in directions]
        rows.append(Row(f"block {block}", tuple(cells)))
    return tuple(rows)


def _setting_rows(found: Sequence[Mapping[str, str]]) -> tuple[Row, ...]:
    rows = []
    for name in dict.fromkeys(key for each in found for key in each):
        texts = [each.get(name, "–") for each in found]
        rows.append(Row(name, tuple(map(Cell, texts)), len(set(texts)) > 1))
    return tuple(sorted(rows, key=lambda row: not row.differs))
