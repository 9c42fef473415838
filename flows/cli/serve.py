"""`contrans refine`, `align`, `transplant`, `revalidate`, `deploy`, `serve`; what they do is imported when called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.completing import references, spec_names

if TYPE_CHECKING:
    from flows.serving.machine import Addresses

_Spec = Annotated[
    str,
    typer.Argument(
        help="A YAML file, or the name of one in deployments/pipelines.", metavar="SPEC", autocompletion=spec_names
    ),
]
_Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as refine.pairs=20."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but data and errors.")]
_Verbose = Annotated[bool, typer.Option("--verbose", help="Show Prefect's log too.")]
_File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The deployments; deployments/prefect.yaml by default.")
]
_PORT, _MLFLOW_PORT = 4200, 5000


def add_serving_commands(app: typer.Typer) -> None:
    """Puts the commands into the front command."""
    for command in (refine, align, transplant, revalidate, deploy, serve):
        app.command()(command)


def refine(
    spec: _Spec, settings: _Settings = None, as_json: _Json = False, quiet: _Quiet = False, verbose: _Verbose = False
) -> None:
    """Refine a spec's concepts in its source model and register the vectors."""
    _stage("refine", spec, settings, as_json=as_json, quiet=quiet, verbose=verbose)


def align(
    spec: _Spec, settings: _Settings = None, as_json: _Json = False, quiet: _Quiet = False, verbose: _Verbose = False
) -> None:
    """Fit the maps from a spec's source into its target and register them."""
    _stage("align", spec, settings, as_json=as_json, quiet=quiet, verbose=verbose)


def transplant(
    spec: _Spec, settings: _Settings = None, as_json: _Json = False, quiet: _Quiet = False, verbose: _Verbose = False
) -> None:
    """Calibrate the dose of a spec's transplants and validate every arm, without what is measured beside."""
    _stage("transplant", spec, settings, as_json=as_json, quiet=quiet, verbose=verbose)


def revalidate(
    transplants: Annotated[
        list[str] | None,
        typer.Argument(
            help="NAME, NAME@version or NAME@alias each; none for all that are published.", autocompletion=references
        ),
    ] = None,
    night: Annotated[
        str | None, typer.Option(metavar="DATE", help="Date to note the scores under; today's by default.")
    ] = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
    verbose: _Verbose = False,
) -> None:
    """Score transplants again on their target's newest revision; what was scored before stays."""
    from datetime import date

    from contrans.errors import SpecError
    from flows.cli.engine import engine
    from flows.cli.talk import Talk, data_console, print_json
    from flows.runs import open_registry

    try:
        night = night and date.fromisoformat(night).isoformat()
    except ValueError as error:
        raise SpecError(f"{night!r} is no date; write it as 2026-01-31.") from error
    with open_registry() as registry:
        for reference in transplants or []:
            registry.get(reference, "transplant")  # said before Prefect starts
    talk = Talk(quiet=quiet, verbose=verbose)
    with engine(talk, verbose=verbose):
        from flows.serving.revalidating import revalidate as flow

        found: Any = flow(list(transplants or []), night)
    if as_json:
        print_json(found)
        return
    if not found["scored"]:
        data_console().print("No transplant was published from this registry; name those to score again.")
        return
    from rich.table import Table

    table = Table()
    for name in ("transplant", "weights", "unsteered", "transplanted", "gain recovered", "drift", "validation"):
        table.add_column(name, overflow="fold")
    for entry in found["scored"]:
        values = [
            (entry["summary"].get(key) or {}).get("value") for key in ("unsteered", "transplanted", "gain_recovered")
        ]
        numbers = ["–" if value is None else f"{value:.3f}" for value in values]
        weights, drift = "new" if entry["changed"] else "the same", (entry["drift"] or {}).get("verdict", "–")
        table.add_row(entry["transplant"], weights, *numbers, drift, entry["validation"])
    data_console().print(table)


def deploy(file: _File = None, as_json: _Json = False) -> None:
    """Register work pools, limits, deployments and their schedules at the server of PREFECT_API_URL."""
    import os

    from contrans.errors import ContransError
    from flows.cli.talk import data_console, print_json
    from flows.server import set_environment
    from flows.serving.deploying import deploy as register
    from flows.serving.deploying import find_file, read_file

    wanted = read_file(find_file(file))
    if not os.environ.get("PREFECT_API_URL"):
        raise ContransError("No server is configured; set PREFECT_API_URL, or start one with `contrans serve`.")
    set_environment()
    made = register(wanted)
    if as_json:
        print_json(made)
        return
    for name in made:
        data_console().print(name, highlight=False)


def serve(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help=f"Of Prefect; {_PORT} or a free one by default, 0 for any.")
    ] = None,
    mlflow_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help=f"Of MLflow; {_MLFLOW_PORT} or a free one by default, 0 for any."),
    ] = None,
    mlflow: Annotated[bool, typer.Option(help="Whether to serve MLflow's UI too.")] = True,
    workers: Annotated[int, typer.Option(min=0, help="Workers for the pool cpu.")] = 1,
    gpu_workers: Annotated[
        int | None, typer.Option(min=0, help="Workers for the pool gpu; one by default where there is a GPU.")
    ] = None,
    file: _File = None,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Serve Prefect, MLflow and workers on this machine, with all deployments, until Ctrl-C."""
    from flows.cli.talk import Talk
    from flows.pool import device_kind
    from flows.serving.deploying import find_file, read_file
    from flows.serving.machine import free_port
    from flows.serving.machine import serve as run

    path = find_file(file)
    read_file(path)
    talk = Talk(quiet=quiet)
    if gpu_workers is None:
        gpu_workers = int(device_kind("auto") == "cuda")
    ports = [free_port(_PORT if port is None else port, insist=bool(port))]
    if mlflow:
        ports.append(free_port(_MLFLOW_PORT if mlflow_port is None else mlflow_port, insist=bool(mlflow_port)))
    talk.console.print("starting; the first time takes half a minute", style="dim")
    run(
        port=ports[0],
        mlflow_port=ports[1] if mlflow else None,
        pools={"cpu": workers, "gpu": gpu_workers},
        file=path,
        ready=lambda at: _show(at, as_json=as_json),
    )
    talk.console.print("ended", style="dim")


def _show(at: "Addresses", *, as_json: bool) -> None:
    from dataclasses import asdict

    from flows.cli.front import program
    from flows.cli.talk import data_console, print_json

    if as_json:
        print_json(asdict(at))
    else:
        console = data_console()
        console.print(f"Prefect      {at.prefect}", highlight=False)
        if at.mlflow:
            console.print(f"MLflow       {at.mlflow}", highlight=False)
        console.print(f"deployments  {', '.join(at.deployments)}", highlight=False)
        console.print(f"In another terminal: export PREFECT_API_URL={at.api}", highlight=False)
        linked = f"--prefect {at.prefect}" + (f" --mlflow {at.mlflow}" if at.mlflow else "")
        said = f"The registry, with links to its runs there: {program()} browse {linked}"
        console.print(said, highlight=False, soft_wrap=True)
    import sys

    sys.stdout.flush()  # who reads it through a pipe waits for it


def _stage(name: str, spec: str, settings: list[str] | None, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    from contrans.models import resolve
    from flows.cli.engine import engine
    from flows.cli.talk import Talk, data_console, print_json
    from flows.runs import open_registry
    from flows.spec import load_spec

    checked = load_spec(spec, settings or [])
    for reference in (checked.source, checked.target):
        resolve(reference)
    open_registry().close()
    talk = Talk(quiet=quiet, verbose=verbose)
    with engine(talk, verbose=verbose):
        from flows.serving import stages

        found: Any = getattr(stages, name)(spec, settings or [])
    talk.cached()
    if as_json:
        print_json(found)
        return
    if name == "transplant":
        from flows.cli.tables import result_tables

        for part in result_tables(found):
            data_console().print(part)
        return
    from flows.cli.versions import print_versions

    with open_registry() as registry:
        versions = registry.run_versions(found["run"]["id"])
    print_versions(versions, as_json=False, nothing="Nothing was registered.")
