"""The commands and their options; what they do is imported when they are called."""

from pathlib import Path
from typing import Annotated

import typer

from contrans.errors import SpecError
from flows.cli.browse import add_browse_commands
from flows.cli.completing import spec_names
from flows.cli.exchange import add_exchange_commands
from flows.cli.hub_commands import add_hub_commands
from flows.cli.looking import add_looking_commands
from flows.cli.registry_commands import registry_app
from flows.cli.serve import add_serving_commands

app = typer.Typer(
    name="contrans",
    help="Carry a concept from a small aligned language model into another model, with evidence.",
    epilog="Start with: contrans run quickstart",
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Spec = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or the name of one in deployments/pipelines.", metavar="SPEC", autocompletion=spec_names
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as validate.random_draws=5."),
]
Choice = Annotated[
    Path | None,
    typer.Option(
        "--choice", metavar="FILE", help="Take blocks, rows and estimator that another run chose, from its --json."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but data and errors.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"contrans {version('contrans')}")
        raise typer.Exit


def _with_choice(choice: Path | None, settings: list[str] | None) -> list[str]:
    if choice is None:
        return settings or []
    from flows.cli.choice import settings_of_choice

    return [*settings_of_choice(choice), *(settings or [])]


@app.callback(invoke_without_command=True)
def front(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the front page as JSON.")] = False,
) -> None:
    """Carry a concept from a small aligned language model into another model, with evidence."""
    if context.invoked_subcommand is None:
        from flows.cli.front import front_command

        front_command(as_json=as_json)
    elif as_json:
        raise SpecError("--json before a command is for the front page; put it behind the command.")


@app.command()
def run(
    spec: Spec,
    settings: Settings = None,
    choice: Choice = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help='Write the results as JSON; "-" for stdout.')
    ] = None,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log too.")] = False,
) -> None:
    """Run a pipeline, a sweep or a matrix: refine, map, transplant, validate, register. Nothing is done twice."""
    from flows.cli.run import run_command

    run_command(spec, _with_choice(choice, settings), json_file=json_file, quiet=quiet, verbose=verbose)


@app.command()
def plan(
    spec: Spec,
    settings: Settings = None,
    choice: Choice = None,
    on: Annotated[
        str, typer.Option("--on", metavar="MACHINE", help="here, a100, h100, h200, l40s or mi300x.")
    ] = "here",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a run would do: steps, what is done, tokens, time, memory. Nothing is run or fetched."""
    from flows.cli.plan import plan_command

    plan_command(spec, _with_choice(choice, settings), on=on, as_json=as_json, quiet=quiet)


@app.command()
def study(
    spec: Spec,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the study goes.")],
    settings: Settings = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show Prefect's log too.")] = False,
) -> None:
    """Run a sweep or a matrix as a study: one tidy table (study.parquet), its figures, its document in a folder."""
    from flows.cli.study import study_command

    study_command(spec, settings or [], out=out, as_json=as_json, quiet=quiet, verbose=verbose)


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it to a file instead of stdout.")
    ] = None,
) -> None:
    """Give the JSON schema of a spec file, for editors.

    An editor checks and completes a spec whose first line is "# yaml-language-server: $schema=FILE".
    """
    from flows.cli.schema import schema_command

    schema_command(out=out)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that can be named as pypi:NAME."""
    from flows.cli.models import models_command

    models_command(as_json=as_json)


# the order is that of the help
add_looking_commands(app)
add_browse_commands(app)
add_hub_commands(app)
add_exchange_commands(app)
add_serving_commands(app)
app.add_typer(registry_app, name="registry")
