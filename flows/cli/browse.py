"""`contrans browse` and `contrans report`; what they do is imported when they are called."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from contrans.errors import SpecError

_FORMATS = ("html", "md")

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
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")] = 8760,
    token: Annotated[
        str | None,
        typer.Option(envvar="CONTRANS_BROWSE_TOKEN", help="What callers must know, 16 characters or more."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser of this machine.")] = False,
) -> None:
    """Look at the registry in a browser: concepts, evidence, lineage, a playground. Nothing is changed.

    It is served until Ctrl-C, to this machine alone unless --host says otherwise.
    """
    from flows.cli.talk import Talk
    from registry.browse import Reader, serve

    talk = Talk()

    def ready(address: str) -> None:
        talk.console.print(f"The registry is at [bold]{address}[/bold] (Ctrl-C ends it)", soft_wrap=True)
        if open_:
            import webbrowser

            webbrowser.open(address)

    with Reader.open(_place(registry)) as opened:
        serve(opened, host=host, port=port, token=token, ready=ready)


def report(
    name: Annotated[str, typer.Argument(help="NAME, NAME@version or NAME@alias; kind:NAME where unclear.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to write it; by default stdout.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="html or md; by default what FILE ends in.")
    ] = None,
    registry: _Place = None,
) -> None:
    """Write a version's page as one self-contained file, for a mail or the appendix of a paper."""
    from registry.browse import Reader, report_html, report_markdown

    wanted = format_ or ("md" if out is not None and out.suffix == ".md" else "html")
    if wanted not in _FORMATS:
        raise SpecError(f"There is no format {wanted!r} of a report; choose {' or '.join(_FORMATS)}.")
    with Reader.open(_place(registry)) as opened:
        made = (report_html if wanted == "html" else report_markdown)(opened, opened.get(name))
    if out is None:
        sys.stdout.write(made)
        return
    try:
        out.write_text(made, encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{out} cannot be written ({error.strerror}); name another file with -o.") from error


def _place(registry: str | None) -> str | None:
    return registry or os.environ.get("CONTRANS_REGISTRY") or None
