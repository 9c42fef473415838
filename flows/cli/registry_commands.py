"""`contrans registry …`: searching, tagging, aliases, and looking after the registry."""

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrans.errors import RegistryError
from flows.cli.completing import references

if TYPE_CHECKING:
    from registry import Registry, Version

registry_app = typer.Typer(help="Look after the registry, and search it.", no_args_is_help=True)

PROBLEMS = 1  # exit code of a check that found something

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but data and errors.")]
Name = Annotated[
    str, typer.Argument(help="NAME, NAME@version or NAME@alias; kind:NAME where unclear.", autocompletion=references)
]
Names = Annotated[
    list[str],
    typer.Argument(help="Versions: NAME, NAME@version or NAME@alias.", metavar="NAME…", autocompletion=references),
]
Tags = Annotated[list[str], typer.Argument(help="Words such as paper or draft/2.", metavar="TAG…")]
Grace = Annotated[str, typer.Option(metavar="TIME", help="Leave alone what is younger, such as 30m, 1h, 2d or 0.")]
Archive = Annotated[Path, typer.Argument(help="The archive.", metavar="FILE", dir_okay=False)]

_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@registry_app.command()
def upgrade(as_json: Json = False) -> None:
    """Create the registry's tables, or bring them up to this version of contrans."""
    from flows.cli.talk import data_console, print_json
    from registry.schema import SCHEMA

    _open(create=True).close()
    if as_json:
        print_json({"schema": SCHEMA})
        return
    data_console().print("The registry is up to date.")


@registry_app.command()
def check(
    repair: Annotated[bool, typer.Option("--repair", help="Put right what can be without losing anything.")] = False,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="PLACE", help="With --repair: a backup, or other blobs, to take contents from."),
    ] = None,
    grace: Grace = "1h",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read everything and say what is wrong; exit code 1 if something is."""
    from flows.cli.talk import Talk, data_console, print_json

    if source is not None and not repair:
        raise RegistryError("--from says where to take lost contents from when repairing; add --repair.")
    with _open() as registry, Talk(quiet=quiet).working("reading everything"):
        period = _duration(grace)
        found = registry.repair(source=source, grace=period) if repair else registry.check(grace=period)
    left = [problem for problem in found if not problem.repaired]
    if as_json:
        print_json([problem.as_json() for problem in found])
    else:
        console = data_console()
        for problem in found:
            state = "repaired" if problem.repaired else problem.kind
            console.print(f"{state:<9} {problem.message}", markup=False, soft_wrap=True)
        if not found:
            console.print("The registry is whole.")
    if any(problem.kind != "orphaned" for problem in left):
        raise typer.Exit(PROBLEMS)


@registry_app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; tell what would go.")] = False,
    grace: Grace = "1h",
    as_json: Json = False,
) -> None:
    """Remove blobs that no version needs, and unfinished writes."""
    from flows.cli.talk import data_console, print_json

    with _open() as registry:
        found = registry.gc(dry_run=dry_run, grace=_duration(grace))
    if as_json:
        print_json({"keys": list(found.keys), "bytes": found.size, "dry_run": found.dry})
        return
    what = "would be removed" if found.dry else "were removed"
    data_console().print(f"{len(found.keys):,} blobs of no version, {found.size / 1e6:,.1f} MB, {what}.")


@registry_app.command()
def backup(file: Archive, as_json: Json = False, quiet: Quiet = False) -> None:
    """Write database and blobs into one archive, while others may go on."""
    from flows.cli.talk import Talk, data_console, print_json

    with _open() as registry, Talk(quiet=quiet).working("backing up"):
        header = registry.backup(file)
    if as_json:
        print_json(header)
    else:
        data_console().print(f"{file} holds {header['rows']['version']:,} versions.", markup=False, soft_wrap=True)


@registry_app.command()
def restore(
    file: Archive,
    to: Annotated[
        str | None, typer.Option(metavar="URL", help="Where; by default $CONTRANS_REGISTRY or the usual place.")
    ] = None,
    blobs: Annotated[str | None, typer.Option(metavar="PLACE", help="Folder or URL of the blobs.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a registry from a backup, on SQLite or PostgreSQL; it must not hold anything yet."""
    import os

    from flows.cli.talk import Talk, data_console, print_json
    from registry import Registry

    with (
        Talk(quiet=quiet).working("restoring"),
        Registry.restore(file, to or os.environ.get("CONTRANS_REGISTRY") or None, blobs=blobs) as registry,
    ):
        count = len(registry.list())
    if as_json:
        print_json({"versions": count})
        return
    data_console().print(f"{count:,} versions were restored.")


@registry_app.command()
def export(file: Archive, names: Names, as_json: Json = False) -> None:
    """Write versions, what judges them and all that they were made from into an archive."""
    with _open() as registry:
        _print_versions(registry.export(names, file), as_json=as_json)


@registry_app.command(name="import")
def import_(file: Archive, as_json: Json = False) -> None:
    """Register the versions of an archive that export wrote; what is there already is not registered again."""
    with _open(create=True) as registry:
        _print_versions(registry.import_versions(file), as_json=as_json)


@registry_app.command()
def alias(
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias, such as production.")],
    force: Annotated[bool, typer.Option("--force", help="Also onto a version that does not pass the gate.")] = False,
    as_json: Json = False,
) -> None:
    """Make an alias point at a version; a protected one only if its validation passes the gate."""
    with _open() as registry:
        _print_versions([registry.set_alias(name, alias, force=force)], as_json=as_json)


@registry_app.command()
def protect(
    alias: Annotated[str | None, typer.Argument(help="The alias; without it the gates are listed.")] = None,
    gate: Annotated[str | None, typer.Argument(help="Such as 'gain_recovered.low > .7 and kl < .1'.")] = None,
    lift: Annotated[bool, typer.Option("--lift", help="Protect the alias no more.")] = False,
    as_json: Json = False,
) -> None:
    """Let an alias move only onto versions whose validation passes a gate."""
    from flows.cli.talk import data_console, print_json

    if alias is not None and (gate is None) != lift:
        raise RegistryError("Give the alias a gate, such as 'gain_recovered.low > .7', or --lift its protection.")
    with _open(create=alias is not None) as registry:
        if alias is not None:
            registry.protect(alias, gate)
        gates = registry.protections()
    if as_json:
        print_json(gates)
        return
    for protected, rule in gates.items():
        data_console().print(f"{protected}  {rule}", markup=False, soft_wrap=True)


@registry_app.command()
def tag(name: Name, tags: Tags, as_json: Json = False) -> None:
    """Put tags on a version."""
    with _open() as registry:
        _print_tags(registry.tag(name, *tags), as_json=as_json)


@registry_app.command()
def untag(name: Name, tags: Tags, as_json: Json = False) -> None:
    """Take tags off a version."""
    with _open() as registry:
        _print_tags(registry.untag(name, *tags), as_json=as_json)


@registry_app.command()
def search(
    text: Annotated[list[str] | None, typer.Argument(help="Words of names, manifests, tags.", metavar="WORD…")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind.")] = None,
    concept: Annotated[str | None, typer.Option(help="Only about this concept.")] = None,
    family: Annotated[str | None, typer.Option(help="Only of this family of concepts or models.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model and what was made directly with it.")] = None,
    estimator: Annotated[str | None, typer.Option(help="Only of this estimator.")] = None,
    where: Annotated[str | None, typer.Option(help="Only with such numbers, as 'gain_recovered > .9'.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Only with this tag; may be repeated.")] = None,
    alias: Annotated[str | None, typer.Option(help="Only what this alias points at.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="Only the newest version of each name.")] = False,
    before: Annotated[str | None, typer.Option(metavar="NAME", help="Go on after this one, the last shown.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """Find versions, the latest registered first."""
    from flows.cli.versions import TREND, print_versions

    with _open() as registry:
        found = registry.search(
            " ".join(text) if text else None,
            kind=kind,
            concept=concept,
            family=family,
            model=model,
            estimator=estimator,
            where=where,
            tags=tags or (),
            alias=alias,
            newest=newest,
            before=before,
            limit=limit,
        )
        known = {} if as_json else registry.gains(found, back=TREND)
    print_versions(found, as_json=as_json, nothing="Nothing fits.", known=known)


@registry_app.command()
def stale(
    name: Annotated[str | None, typer.Argument(help="Only this version.", autocompletion=references)] = None,
    as_json: Json = False,
) -> None:
    """Say what is stale because something that it was made from has a newer version."""
    from flows.cli.talk import data_console, print_json

    with _open() as registry:
        found = registry.stale(name)
    if as_json:
        keys = ("version", "used", "newest")
        print_json([{k: str(getattr(o, k)) for k in keys} | {"role": o.role, "direct": o.direct} for o in found])
        return
    for each in found:
        data_console().print(f"{each}.", markup=False, soft_wrap=True)
    if not found:
        data_console().print("Nothing is stale.")


def _open(*, create: bool = False) -> "Registry":
    from flows.runs import open_registry

    return open_registry(create=create)


def _duration(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", text)
    if match is None:
        raise RegistryError(f"{text!r} is not a time; give a whole number with s, m, h or d, such as 30m.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _print_versions(versions: "list[Version]", *, as_json: bool) -> None:
    from flows.cli.versions import print_versions

    print_versions(versions, as_json=as_json, nothing="Nothing fits.")


def _print_tags(tags: tuple[str, ...], *, as_json: bool) -> None:
    from flows.cli.talk import data_console, print_json

    found: Any = list(tags)
    if as_json:
        print_json(found)
    else:
        data_console().print(", ".join(found) or "The version has no tags.", markup=False)
