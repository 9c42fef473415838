"""`contrans` alone: what it is, how to begin, what the registry holds, where things are, what comes next."""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy import func, select

from contrans.errors import RegistryError
from contrans.models.cache import cache_home
from contrans.validation.wording import shown
from flows.cli.opening import reader_if_any
from flows.cli.talk import data_console, print_json
from registry import home
from registry.browse.filtering import Filters
from registry.browse.listing import Line, concepts_page
from registry.browse.reading import Reader
from registry.names import KINDS
from registry.schema import NameRow

_LATEST = 25  # transplants among which the latest result is looked for
_START = (
    ("run quickstart", "carry six emotions from one small model into another, with evidence"),
    ("browse", "look at what came out, and play with it, in a browser"),
    ("--help", "every command; each has a --help of its own"),
)


@dataclass(frozen=True)
class _Front:
    """What the page is made of.

    Attributes:
        held: Versions of each kind.
        latest: The latest transplant, one with a result if there is one.
        problem: Why the registry cannot be shown, or "".
        following: What to type next, without the program's name.
    """

    held: dict[str, int]
    latest: Line | None
    problem: str
    following: str


def front_command(*, as_json: bool) -> None:
    """Prints the front page. Nothing is made or changed, and where the registry cannot be read it says so.

    Args:
        as_json: Whether to print JSON: `version`, `home`, `models`, `next`, and `registry` with `versions` by kind,
            `latest` and `problem`.
    """
    found = _look()
    if as_json:
        print_json(_as_json(found, program()))
        return
    console = data_console()
    for part in _page(found, program()):
        console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))  # what is copied is not cut


def program() -> str:
    """What to type for `contrans` here: its path where the shell does not find it by its name."""
    typed = Path(sys.argv[0])
    if typed.name != "contrans" or not typed.exists():
        return "contrans"
    found = shutil.which("contrans")
    if found is not None and Path(found).resolve() == typed.resolve():
        return "contrans"
    # As short as it can be typed: from the folder that one is in, if it lies below.
    path = Path(os.path.abspath(typed))  # noqa: PTH100  a link to the program stays one
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _look() -> _Front:
    try:
        registry = reader_if_any()
        if registry is None:
            return _Front({}, None, "", "run quickstart")
        with registry:
            latest = _latest(registry)
            following = "run quickstart" if latest is None else f"show {latest.version.ref}"
            return _Front(_held(registry), latest, "", following)
    except RegistryError as error:
        return _Front({}, None, str(error), "registry check")


def _page(found: _Front, called: str) -> Iterator[RenderableType]:
    what = ": carry a concept from a small aligned language model into another, with evidence."
    yield Text.assemble((f"ConTrans {version('contrans')}", "bold"), what)
    yield ""
    yield _pairs((Text(f"{called} {typed}", style="bold"), Text(why)) for typed, why in _START)
    yield ""
    if found.problem:
        yield Text.assemble(("The registry cannot be shown: ", "yellow"), found.problem)
    else:
        held = [f"{count:,} {_plural(kind, count)}" for kind, count in found.held.items()]
        yield Text(f"The registry holds {', '.join(held) or 'nothing yet'}.")
    if found.latest is not None:
        gain = found.latest.gain
        judged = "" if gain is None else f"  gain recovered {shown(gain.value, gain.low, gain.high)}"
        when = f"  {found.latest.version.created.astimezone():%Y-%m-%d %H:%M}"
        yield Text.assemble("The latest: ", (found.latest.version.ref, "bold"), judged, (when, "dim"))
    yield ""
    places = (("home", home(), "CONTRANS_HOME"), ("models", cache_home(), "CONTRANS_CACHE"))
    yield _pairs((Text(name), Text.assemble(_short(path), (f"  {key}", "dim"))) for name, path, key in places)
    yield ""
    yield Text.assemble("Next: ", (f"{called} {found.following}", "bold"), no_wrap=True, overflow="ignore")
    yield Text.assemble(("The Tab key completes names after: ", "dim"), f"{called} --install-completion")


def _as_json(found: _Front, called: str) -> dict[str, Any]:
    latest = None
    if found.latest is not None:
        gain = found.latest.gain
        latest = found.latest.version.as_json() | {
            "gain_recovered": None if gain is None else {"value": gain.value, "low": gain.low, "high": gain.high}
        }
    return {
        "version": version("contrans"),
        "home": str(home()),
        "models": str(cache_home()),
        "registry": {"versions": found.held, "latest": latest, "problem": found.problem or None},
        "next": f"{called} {found.following}",
    }


def _latest(registry: Reader) -> Line | None:
    """The latest transplant that has a result, else the latest; None where there is none."""
    lines = concepts_page(registry, Filters(every=True), size=_LATEST).lines
    return next((line for line in lines if line.gain is not None), lines[0] if lines else None)


def _held(registry: Reader) -> dict[str, int]:
    # Numbers have no gaps, so that the newest one of each name tells how many there are.
    query = select(NameRow.kind, func.sum(NameRow.last)).group_by(NameRow.kind)
    with registry.session() as session:
        counts = {kind: int(count or 0) for kind, count in session.execute(query)}
    return {kind: counts[kind] for kind in KINDS if counts.get(kind)}


def _plural(kind: str, count: int) -> str:
    return kind.replace("_", " ") + ("" if count == 1 else "s")


def _pairs(rows: Iterable[tuple[Text, Text]]) -> Table:
    grid = Table.grid(padding=(0, 3))
    for row in rows:
        grid.add_row("", *row)
    return grid


def _short(path: Path) -> str:
    own = Path.home()
    return f"~/{path.relative_to(own)}" if path.is_relative_to(own) else str(path)
