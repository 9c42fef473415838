"""The commands and their options; what they do is imported when they are called."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.hub_commands import add_hub_commands
from flows.cli.registry_commands import registry_app

app = typer.Typer(
    name="contrans",
    help="Carry a concept from a small aligned language model into another model, with evidence.",
    epilog="Start with: contrans run quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(registry_app, name="registry")
add_hub_commands(app)

Spec = Annotated[str, typer.Argument(help="A YAML file, or the name of one in deployments/pipelines.", metavar="SPEC")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as validate.random_draws=5."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but data and errors.")]
Name = Annotated[str, typer.Argument(help="NAME, NAME@version or NAME@alias; kind:NAME where unclear.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"contrans {version('contrans')}")
        raise typer.Exit


@app.callback()
def front(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Carry a concept from a small aligned language model into another model, with evidence."""


@app.command()
def run(
    spec: Spec,
    settings: Settings = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help='Write the results as JSON; "-" for stdout.')
    ] = None,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log too.")] = False,
) -> None:
    """Run a pipeline or a sweep: refine, map, transplant, validate, register. What is done is not done again."""
    from flows.cli.run import run_command

    run_command(spec, settings or [], json_file=json_file, quiet=quiet, verbose=verbose)


@app.command()
def plan(
    spec: Spec,
    settings: Settings = None,
    on: Annotated[
        str, typer.Option("--on", metavar="MACHINE", help="here, a100, h100, h200, l40s or mi300x.")
    ] = "here",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a run would do: steps, what is done, tokens, time, memory. Nothing is run or fetched."""
    from flows.cli.plan import plan_command

    plan_command(spec, settings or [], on=on, as_json=as_json, quiet=quiet)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that can be named as pypi:NAME."""
    from flows.cli.models import models_command

    models_command(as_json=as_json)


@app.command(name="list")
def list_(
    kind: Annotated[
        str | None,
        typer.Option(help="Only model, text_set, vector, map, transplant or validation."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what the registry holds, the newest first."""
    from flows.cli.versions import list_command

    list_command(kind=kind, as_json=as_json)


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show a version: what it is, its files, inputs, results and runs."""
    from flows.cli.versions import show_command

    show_command(name, as_json=as_json)


@app.command()
def lineage(name: Name, as_json: Json = False) -> None:
    """Show what a version was made from, and what was made from it."""
    from flows.cli.versions import lineage_command

    lineage_command(name, as_json=as_json)
