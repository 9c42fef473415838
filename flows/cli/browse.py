"""`contrans browse` and `contrans report`; what they do is imported when they are called."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from contrans.errors import SpecError
from flows.cli.completing import references

_FORMATS = ("html", "md", "pdf")

_Place = Annotated[
    str | None,
    typer.Option("--registry", metavar="URL", help="A path or URL; by default $CONTRANS_REGISTRY or the usual place."),
]


def add_browse_commands(app: typer.Typer) -> None:
    """Puts the commands into the front command."""
    app.command()(browse)
    app.command()(report)


def browse(
    registry: _Place = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; other than this machine only with --token.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port, 0 for any that is free; 8760 or a free one by default."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(envvar="CONTRANS_BROWSE_TOKEN", help="What callers must know, 16 characters or more."),
    ] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URL", help="MLflow's pages, to link runs to; by default $MLFLOW_TRACKING_URI."),
    ] = None,
    prefect: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Prefect's, likewise; by default $PREFECT_UI_URL or from $PREFECT_API_URL."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser of this machine.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as JSON, once it is served.")] = False,
) -> None:
    """Look at the registry in a browser: concepts, evidence, lineage, a playground. Nothing is changed.

    It is served until Ctrl-C, to this machine alone unless --host says otherwise.
    """
    from flows.cli.talk import Talk, print_json
    from registry.browse import Elsewhere, Reader, serve

    talk, elsewhere = Talk(), Elsewhere.find(mlflow, prefect)

    def ready(address: str) -> None:
        if as_json:
            print_json({"address": address})
            sys.stdout.flush()  # who reads it through a pipe waits for it
        else:
            talk.console.print(f"The registry is at [bold]{address}[/bold] (Ctrl-C ends it)", soft_wrap=True)
        if open_:
            import webbrowser

            webbrowser.open(address)

    with Reader.open(_place(registry)) as opened:
        serve(opened, host=host, port=port, token=token, elsewhere=elsewhere, ready=ready)


def report(
    name: Annotated[
        str,
        typer.Argument(help="NAME, NAME@version or NAME@alias; kind:NAME where unclear.", autocompletion=references),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write it; by default stdout.")
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="html, md, or pdf where there is Chromium; by default what FILE ends in."
        ),
    ] = None,
    registry: _Place = None,
) -> None:
    """Write a version's page as one self-contained file, for a mail or the appendix of a paper."""
    from registry.browse import Reader, report_html, report_markdown, report_pdf

    ending = "" if out is None else out.suffix.removeprefix(".").lower()
    wanted = format_ or (ending if ending in _FORMATS else "html")
    if wanted not in _FORMATS:
        raise SpecError(f"There is no format {wanted!r} of a report; the formats are {', '.join(_FORMATS)}.")
    if wanted == "pdf" and out is None and sys.stdout.isatty():
        raise SpecError("A PDF is nothing for a terminal to show; name a file with -o.")
    with Reader.open(_place(registry)) as opened:
        version = opened.get(name)
        if wanted == "pdf":
            made = report_pdf(opened, version)
        else:
            made = (report_html if wanted == "html" else report_markdown)(opened, version).encode()
    if out is None:
        sys.stdout.buffer.write(made)
        return
    try:
        out.write_bytes(made)
    except OSError as error:
        raise SpecError(f"{out} cannot be written ({error.strerror}); name another file with -o.") from error


def _place(registry: str | None) -> str | None:
    return registry or os.environ.get("CONTRANS_REGISTRY") or None
