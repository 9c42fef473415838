"""Versions side by side: their numbers with the difference to the first, cosines of their vectors, their settings."""

from collections.abc import Sequence
from dataclasses import dataclass

from contrans.errors import RegistryError
from contrans.validation.wording import shown, spoken
from registry.browse.differences import Number, compared_numbers, compared_settings
from registry.browse.reading import Reader
from registry.browse.vectors import blocks_of, cosine
from registry.records import Version

MOST = 6


@dataclass(frozen=True)
class Cell:
    """A number; whether it is "higher" than the first version's, "lower", "no difference" or ""; and by how much."""

    text: str
    verdict: str = ""
    words: str = ""


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
        named = "one version was" if len(versions) == 1 else f"{len(versions)} different versions were"
        raise RegistryError(f"{named.capitalize()} named; compare two to {MOST}.")
    return Compared(
        versions,
        tuple(map(_number_row, compared_numbers(registry, versions))),
        _cosine_rows(registry, versions),
        tuple(Row(s.name, tuple(map(Cell, s.values)), s.differs) for s in compared_settings(registry, versions)),
    )


def _number_row(number: Number) -> Row:
    cells = []
    for result, found in zip(number.results, number.differences, strict=True):
        text = "–" if result is None else shown(result.value, result.low, result.high)
        cells.append(Cell(text, "" if found is None else found.verdict, "" if found is None else found.words))
    name = ", ".join(map(spoken, (number.protocol, number.arm, number.metric)))
    return Row(name, tuple(cells), any(cell.verdict in ("higher", "lower") for cell in cells))


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
