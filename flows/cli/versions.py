"""`contrans list` and `lineage`, and how versions are listed anywhere."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from contrans.errors import RegistryError
from contrans.validation.wording import shown
from flows.cli.opening import open_reader
from flows.cli.plots import sparkline
from flows.cli.talk import data_console, print_json
from registry import Lineage, Version
from registry.browse.filtering import Filters, Sort
from registry.browse.listing import concepts_page
from registry.browse.reading import Reader
from registry.gains import Gain
from registry.lineage import Direction

_SCREEN = 100  # versions that are listed on a terminal if no number is given
_PAGE = 500  # transplants that are fetched at once
TREND = 8  # versions of a name in its sparkline
_NARROW = 100  # columns of a terminal below which a list shows less
_NOTHING = "The registry holds nothing yet; `contrans run quickstart` fills it."


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which versions are listed, and in which order; see the options of `contrans list`."""

    kind: str | None = None
    concept: str | None = None
    source: str | None = None
    target: str | None = None
    family: str | None = None
    estimator: str | None = None
    alias: str | None = None
    where: str | None = None
    sort: str = "new"
    limit: int | None = None
    after: str | None = None

    @property
    def of_transplants(self) -> bool:
        """Whether it is asked for something that only transplants have."""
        return self.source is not None or self.target is not None or self.sort != "new"

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Wanted(limit=self.limit)


def list_command(wanted: Wanted, *, as_json: bool) -> None:
    """Lists versions.

    Args:
        wanted: Which, and in which order.
        as_json: Whether to print JSON, an array of `Version.as_json`.

    Raises:
        RegistryError: If a filter, the order or the key of a page cannot be understood.
    """
    limit = wanted.limit or (_SCREEN if sys.stdout.isatty() and not as_json else None)
    with open_reader() as registry:
        versions, after = _found(registry, wanted, limit)
        known = {} if as_json else registry.gains(versions, back=TREND)
    nothing = _NOTHING if wanted.everything else "Nothing fits."
    print_versions(versions, as_json=as_json, nothing=nothing, known=known)
    if after:
        talk = Console(stderr=True, highlight=False, soft_wrap=True)
        talk.print(Text(f"There are more; add --after {after} to go on.", style="dim"))


def _found(registry: Reader, wanted: Wanted, limit: int | None) -> tuple[list[Version], str]:
    """The versions, and the key of the next page or ""."""
    if not wanted.of_transplants:
        found = registry.search(
            kind=wanted.kind,
            concept=wanted.concept,
            family=wanted.family,
            estimator=wanted.estimator,
            alias=wanted.alias,
            where=wanted.where,
            before=wanted.after,
            limit=None if limit is None else limit + 1,
        )
        more = limit is not None and len(found) > limit
        return found[:limit], str(found[limit - 1]) if more and limit else ""
    if wanted.kind not in (None, "transplant"):
        raise RegistryError(
            "--source, --target and --sort are for transplants; leave --kind out, or find what else was made with a "
            f"model by `contrans search --kind {wanted.kind} --model MODEL`."
        )
    found, after = [], wanted.after or ""
    while limit is None or len(found) < limit:
        filters = Filters(
            concept=wanted.concept or "",
            source=wanted.source or "",
            target=wanted.target or "",
            family=wanted.family or "",
            estimator=wanted.estimator or "",
            alias=wanted.alias or "",
            where=wanted.where or "",
            every=True,
            sort=_sort(wanted.sort),
            after=after,
        )
        page = concepts_page(registry, filters, size=_PAGE if limit is None else min(limit - len(found), _PAGE))
        found += [line.version for line in page.lines]
        after = page.after
        if not after:
            break
    return found, after


def _sort(text: str) -> Sort:
    for sort in ("new", "name", "gain"):
        if text == sort:
            return sort
    raise RegistryError(f"There is no order {text!r}; --sort takes new, name or gain.")


def print_versions(
    versions: Sequence[Version], *, as_json: bool, nothing: str, known: Mapping[int, Sequence[Gain]] = {}
) -> None:
    """Prints versions as a table.

    Args:
        versions: In the order of the rows.
        as_json: Whether to print JSON instead, an array of `Version.as_json`.
        nothing: What is said where there are none.
        known: What `Registry.gains` found of them; without it there is no column of gains.
    """
    if as_json:
        print_json([version.as_json() for version in versions])
        return
    console = data_console()
    if not versions:
        console.print(nothing)
        return
    narrow = console.width < _NARROW
    columns = {
        "kind": [v.kind for v in versions],
        "name": [v.name for v in versions],
        "version": [str(v.number) for v in versions],
        "aliases": [", ".join(v.aliases) for v in versions],
        "created": [f"{v.created.astimezone():{'%Y-%m-%d' if narrow else '%Y-%m-%d %H:%M'}}" for v in versions],
        "gain recovered": [_gain(v, known, interval=not narrow) for v in versions],
        "versions": [_trend(v, known) for v in versions],
    }
    hidden = {"kind"} if narrow and len(set(columns["kind"])) == 1 else set()
    kept = {name: cells for name, cells in columns.items() if any(cells) and name not in hidden}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in kept:
        right = name in ("version", "gain recovered")
        head = {"version": "v", "gain recovered": "gain"}.get(name, name) if narrow else name
        # Names are what one copies from here: they wrap, everything else gives way.
        whole = name in ("version", "created", "gain recovered", "versions")
        table.add_column(head, justify="right" if right else "left", overflow="fold", no_wrap=whole)
    for cells in zip(*kept.values(), strict=True):
        table.add_row(*map(Text, cells))
    console.print(table)


def _gain(version: Version, known: Mapping[int, Sequence[Gain]], *, interval: bool) -> str:
    own = next((gain for gain in known.get(version.id, ()) if gain.number == version.number), None)
    if own is None:
        return ""
    return shown(own.value, own.low, own.high) if interval else shown(own.value)


def _trend(version: Version, known: Mapping[int, Sequence[Gain]]) -> str:
    values = [gain.value for gain in known.get(version.id, ())]
    return sparkline(values) if len(values) > 1 else ""


def lineage_command(name: str, *, direction: str, depth: int | None, as_json: bool) -> None:
    """Shows a version's lineage.

    Args:
        name: Reference of the version.
        direction: "up" for what it was made from, "down" for what was made from it, or "both".
        depth: How many steps to go at most; None for all.
        as_json: Whether to print `Lineage.as_json`.

    Raises:
        RegistryError: If there is no such version or direction.
    """
    with open_reader() as registry:
        lineage = registry.lineage(name, _direction(direction), depth)
    if as_json:
        print_json(lineage.as_json())
        return
    console = data_console()
    if lineage.direction != "down":
        console.print(_tree(lineage, "up", "made from"))
    if lineage.direction == "down" or (lineage.direction == "both" and lineage.children(lineage.root)):
        console.print(_tree(lineage, "down", "used by"))


def _direction(text: str) -> Direction:
    for direction in ("up", "down", "both"):
        if text == direction:
            return direction
    raise RegistryError(f"There is no direction {text!r}; the directions are up, down and both.")


def _tree(lineage: Lineage, direction: Literal["up", "down"], title: str) -> Tree:
    branches: list[Tree] = []
    for step in lineage.walk(direction):
        again = Text("  (see above)", style="dim") if step.repeated else ""
        role = f"{step.role}: " if step.role else ""
        label = Text.assemble((role, "dim"), (step.version.ref, "bold" if not step.depth else ""))
        label.append_text(Text.assemble((f"  {step.version.kind}", "dim"), again))
        if not step.depth:
            branches = [Tree(Text.assemble(label, (f"  {title}", "dim")))]
            continue
        del branches[step.depth :]
        branches.append(branches[-1].add(label))
    return branches[0]
