"""`contrans publish`, `pull` and `hub search`; what they do is imported when they are called."""

from typing import Annotated, Any

import typer

from flows.cli.completing import model_names, references

hub_app = typer.Typer(help="Concepts on the Hugging Face Hub.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but data and errors.")]


def add_hub_commands(app: typer.Typer) -> None:
    """Puts the commands into the front command."""
    app.command()(publish)
    app.command()(pull)
    app.add_typer(hub_app, name="hub")


def publish(
    name: Annotated[
        str, typer.Argument(help="The transplant: NAME, NAME@version or NAME@alias.", autocompletion=references)
    ],
    to: Annotated[str, typer.Option("--to", metavar="ORG/REPO", help="Repository of the Hub; made if need be.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    targets: Annotated[
        str, typer.Option(metavar="A,B", help='Take along its transplants for further models, or "all".')
    ] = "",
    licence: Annotated[
        str | None, typer.Option(metavar="ID", help="Licence as the Hub calls it; by default that of its parts.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Publish without a validation.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and send nothing.")] = False,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Publish a transplant with its evidence to the Hub. Publishing the same again changes nothing.

    The token is that of HF_TOKEN or `hf auth login`.
    """
    from flows.cli.talk import Talk, data_console, print_json
    from flows.runs import open_registry
    from registry.hub import publish as publish_

    talk = Talk(quiet=quiet)
    _quiet_client()
    with open_registry() as registry, talk.working(f"Publishing to {to}"):
        done = publish_(
            registry,
            name,
            to,
            private=private,
            targets=_parts(targets),
            force=force,
            licence=licence,
            dry_run=dry_run,
        )
    if as_json:
        print_json(done.as_json())
        return
    console = data_console()
    console.print(_table(("file", "bytes"), [(path, f"{size:,}") for path, size in done.files.items()]))
    where = f"{done.repo}@{done.tag}"
    if dry_run:
        console.print(f"{done.version} would be published as {where}; nothing was sent.", highlight=False)
    else:
        said = "is published" if done.created else "was published before"
        console.print(f"{done.version} {said} as {where}, commit {done.commit}: {done.url}", highlight=False)


def pull(
    repo: Annotated[str, typer.Argument(help="ORG/REPO, ORG/REPO@tag or ORG/REPO@commit.", metavar="REPO")],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model to put it into; without, the source's own vector.",
            autocompletion=model_names,
        ),
    ] = None,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Take a transplant for other weights of the model.")
    ] = False,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Pull a published concept, check every hash, and register it with where it came from."""
    from flows.cli.talk import Talk, data_console, print_json
    from flows.runs import open_registry
    from registry.hub import fetch

    talk = Talk(quiet=quiet)
    _quiet_client()
    with open_registry() as registry, talk.working(f"Pulling {repo}"):
        found = fetch(repo, target=target, allow_mismatch=allow_mismatch, registry=registry)
    if as_json:
        print_json(found.as_json())
        return
    console = data_console()
    blocks = found.vector.blocks
    facts = [
        ("concept", found.vector.concept),
        ("model", found.vector.model.reference),
        ("blocks", str(blocks[0]) if len(blocks) == 1 else f"{blocks[0]} to {blocks[-1]}"),
        ("dose", "–" if found.entry.dose is None else f"{found.entry.dose:g}"),
        ("published as", found.entry.registered.ref),
        ("commit", found.commit),
        ("registered as", str(found.version)),
    ]
    console.print(_table(("", repo), facts))


@hub_app.command()
def search(
    query: Annotated[str | None, typer.Argument(help="Words in the repository's name.")] = None,
    author: Annotated[str | None, typer.Option(metavar="ORG", help="Only of this user or organisation.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: _Json = False,
) -> None:
    """List the concepts that are published on the Hub."""
    from flows.cli.talk import data_console, print_json
    from registry.hub import search as search_

    _quiet_client()
    found = search_(query, author=author, limit=limit)
    if as_json:
        print_json([entry.as_json() for entry in found])
        return
    if not found:
        data_console().print("The Hub has no published concept that fits; leave words out to see more.")
        return
    rows = [
        (f.repo, f.concept or "–", ", ".join(f.base_models) or "–", str(f.downloads), (f.updated or "–")[:10])
        for f in found
    ]
    data_console().print(_table(("repository", "concept", "models", "downloads", "updated"), rows))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _quiet_client() -> None:
    """Keeps the client's own bars off the terminal, and its calls from waiting for ever."""
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils.logging import set_verbosity_error

    from registry.hub.client import limit_waiting

    disable_progress_bars()
    set_verbosity_error()
    limit_waiting()


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in columns:
        table.add_column(name, justify="right" if name in ("bytes", "downloads") else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
