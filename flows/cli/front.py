"""`contrans` alone: what it is, how to begin, what the registry holds, where things are, what comes next."""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from sqlalchemy import func, select

from contrans.errors import RegistryError
from contrans.models.cache import cache_home
from contrans.validation.wording import shown
from flows.cli.opening import reader_if_any
from flows.cli.talk import data_console
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


def front_command() -> None:
    """Prints the front page. Nothing is made or changed, and where the registry cannot be read it says so."""
    console = data_console()
    for part in _page(program()):
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


def _page(called: str) -> Iterator[RenderableType]:
    what = ": carry a concept from a small aligned language model into another, with evidence."
    yield Text.assemble((f"ConTrans {version('contrans')}", "bold"), what)
    yield ""
    yield _pairs((Text(f"{called} {typed}", style="bold"), Text(why)) for typed, why in _START)
    yield ""
    following = f"{called} run quickstart"
    try:
        registry = reader_if_any()
        if registry is None:
            yield "The registry holds nothing yet."
        else:
            with registry:
                latest = _latest(registry)
                yield from _holdings(registry, latest)
            if latest is not None:
                following = f"{called} show {latest.version.ref}"
    except RegistryError as error:
        yield Text.assemble(("The registry cannot be shown: ", "yellow"), str(error))
        following = f"{called} registry check"
    yield ""
    places = (("home", home(), "CONTRANS_HOME"), ("models", cache_home(), "CONTRANS_CACHE"))
    yield _pairs((Text(name), Text.assemble(_short(path), (f"  {key}", "dim"))) for name, path, key in places)
    yield ""
    yield Text.assemble("Next: ", (following, "bold"), no_wrap=True, overflow="ignore")
    yield Text.assemble(("The Tab key completes names after: ", "dim"), f"{called} --install-completion")


def _latest(registry: Reader) -> Line | None:
    """The latest transplant that has a result, else the latest; None where there is none."""
    lines = concepts_page(registry, Filters(every=True), size=_LATEST).lines
    return next((line for line in lines if line.gain is not None), lines[0] if lines else None)


def _holdings(registry: Reader, latest: Line | None) -> Iterator[RenderableType]:
    # Numbers have no gaps, so that the newest one of each name tells how many there are.
    query = select(NameRow.kind, func.sum(NameRow.last)).group_by(NameRow.kind)
    with registry.session() as session:
        counts = {kind: int(count or 0) for kind, count in session.execute(query)}
    held = [f"{counts[kind]:,} {_plural(kind, counts[kind])}" for kind in KINDS if counts.get(kind)]
    yield Text(f"The registry holds {', '.join(held) or 'nothing yet'}.")
    if latest is not None:
        gain = latest.gain
        judged = "" if gain is None else f"  gain recovered {shown(gain.value, gain.low, gain.high)}"
        when = f"  {latest.version.created.astimezone():%Y-%m-%d %H:%M}"
        yield Text.assemble("The latest: ", (latest.version.ref, "bold"), judged, (when, "dim"))


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
