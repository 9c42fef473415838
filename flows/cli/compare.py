"""`contrans compare`: versions side by side, and whether their numbers differ by more than chance."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from string import ascii_uppercase
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from contrans.validation.grids import Grid
from contrans.validation.wording import shown, spoken
from flows.cli.opening import open_reader
from flows.cli.plots import visible
from flows.cli.talk import data_console, print_json
from registry import Result
from registry.browse.comparing import Compared, Row, compare_versions
from registry.browse.differences import Number, Setting, compared_numbers, compared_settings
from registry.browse.facts import sentence

_LEGEND = (
    "▲ higher, ▼ lower, = no difference from A at 5 %. With p: paired over the items that both were tested on (exact "
    "McNemar or sign flips, Holm over all such lines). Else by the 95 % interval of the difference in brackets, as if "
    "the two were independent."
)


def compare_command(names: Sequence[str], *, as_json: bool) -> None:
    """Compares versions with the first one.

    Args:
        names: References of the versions.
        as_json: Whether to print JSON: `versions` (references), `numbers` (`protocol`, `arm`, `metric`, `values`,
            `differences`), `cosines` (`block`, `cosines`) and `settings` (`name`, `values`, `differs`).

    Raises:
        RegistryError: If there are too few or too many, or one does not exist.
    """
    with open_reader() as registry:
        found = compare_versions(registry, names)
        numbers = compared_numbers(registry, found.versions)
        lines = compared_settings(registry, found.versions)
        said = [sentence(version, registry.inputs(version)) for version in found.versions]
    if as_json:
        print_json(_as_json(found, numbers, lines))
        return
    console = data_console()
    for part in _parts(found, numbers, lines, said):
        console.print(part)


def _parts(
    found: Compared, numbers: Sequence[Number], lines: Sequence[Setting], said: Sequence[str]
) -> Iterator[RenderableType]:
    letters = tuple(ascii_uppercase[: len(found.versions)])
    for letter, version, words in zip(letters, found.versions, said, strict=True):
        yield Text.assemble((f"{letter}  {version.ref}", "bold"), (f"  {version.kind}", "dim"))
        yield Padding(Text(visible(words), style="dim"), (0, 0, 0, 3))
    for of in dict.fromkeys((number.protocol, number.arm) for number in numbers):
        yield ""
        yield _numbers_grid([number for number in numbers if (number.protocol, number.arm) == of], letters)
    yield Text(_LEGEND if numbers else "No validation judges any of them: there are no numbers.", style="dim")
    if found.cosines:
        yield ""
        yield Grid("cosine to A", ("block", *letters), tuple(_texts(row) for row in found.cosines))
    differing = tuple(tuple(map(visible, (line.name, *line.values))) for line in lines if line.differs)
    if differing:
        yield ""
        yield Grid("settings that differ", ("setting", *letters), differing, prose=True).rich()
    alike = [f"{line.name} {line.values[0]}" for line in lines if not line.differs]
    if alike:
        yield Text(visible(f"The same in all: {'; '.join(alike)}."), style="dim")


def _numbers_grid(numbers: Sequence[Number], letters: tuple[str, ...]) -> Grid:
    rows: list[tuple[str, ...]] = []
    bold = set()
    for number in numbers:
        rows.append((spoken(number.metric), *(_shown(result) for result in number.results)))
        first = _shown(number.results[0])
        cells = [
            "" if d is None else "=" if d.change == 0 and _shown(result) == first else d.words
            for d, result in zip(number.differences, number.results, strict=True)
        ]
        if set(cells) - {"", "="}:
            if any(d is not None and d.verdict != "no difference" for d in number.differences):
                bold.add(len(rows))
            rows.append(("", *cells))
    title = f"{spoken(numbers[0].protocol)}, {spoken(numbers[0].arm)}, on test"
    return Grid(title, ("", *letters), tuple(rows), frozenset(bold))


def _shown(result: Result | None) -> str:
    return "–" if result is None else shown(result.value, result.low, result.high)


def _texts(row: Row) -> tuple[str, ...]:
    return (row.name.removeprefix("block "), *(cell.text for cell in row.cells))


def _as_json(found: Compared, numbers: Sequence[Number], lines: Sequence[Setting]) -> dict[str, Any]:
    def value(result: Result | None) -> dict[str, Any] | None:
        return None if result is None else {key: getattr(result, key) for key in ("value", "low", "high", "n")}

    return {
        "versions": [str(version) for version in found.versions],
        "numbers": [
            {
                "protocol": number.protocol,
                "arm": number.arm,
                "metric": number.metric,
                "values": [value(result) for result in number.results],
                "differences": [None if d is None else asdict(d) for d in number.differences],
            }
            for number in numbers
        ],
        "cosines": [
            {"block": int(row.name.removeprefix("block ")), "cosines": [_cosine(cell.text) for cell in row.cells]}
            for row in found.cosines
        ],
        "settings": [{**asdict(line), "differs": line.differs} for line in lines],
    }


def _cosine(text: str) -> float | None:
    """A cosine, or None where a cell says why there is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value == value else None  # nan, of a zero direction, is no JSON
