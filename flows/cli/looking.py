"""`contrans list`, `show`, `compare`, `lineage`, `play` and `search`; what they do is imported when they are called."""

from typing import Annotated

import typer

from flows.cli.completing import model_names, references
from flows.cli.registry_commands import search

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
_Name = Annotated[
    str,
    typer.Argument(help="NAME, NAME@version or NAME@alias; kind:NAME where unclear.", autocompletion=references),
]


def add_looking_commands(app: typer.Typer) -> None:
    """Puts the commands into the front command."""
    app.command(name="list")(list_)
    app.command()(show)
    app.command()(compare)
    app.command()(lineage)
    app.command()(play)
    app.command()(search)


def list_(
    kind: Annotated[
        str | None,
        typer.Option(help="Only model, text_set, vector, map, transplant or validation."),
    ] = None,
    concept: Annotated[str | None, typer.Option(help="Only of this concept.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Only transplants from this model.", autocompletion=model_names)
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Only transplants into this model.", autocompletion=model_names)
    ] = None,
    family: Annotated[str | None, typer.Option(help="Only of this family of concepts or models.")] = None,
    estimator: Annotated[str | None, typer.Option(help="Only made by this estimator.")] = None,
    alias: Annotated[str | None, typer.Option(help="Only what this alias points at.")] = None,
    where: Annotated[
        str | None, typer.Option(metavar="RULE", help="Only with such numbers, as 'gain_recovered.low > .7'.")
    ] = None,
    sort: Annotated[
        str, typer.Option(help="new: the newest first; of transplants also name, or gain: the best first.")
    ] = "new",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many; on a terminal 100 if not told, else all.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="KEY", help="Go on after this one, as the page before said at its end.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """List what the registry holds, the newest first."""
    from flows.cli.versions import Wanted, list_command

    wanted = Wanted(
        kind=kind,
        concept=concept,
        source=source,
        target=target,
        family=family,
        estimator=estimator,
        alias=alias,
        where=where,
        sort=sort,
        limit=limit,
        after=after,
    )
    list_command(wanted, as_json=as_json)


def show(name: _Name, as_json: _Json = False) -> None:
    """Show a version: what it is, its results beside controls, its files, inputs and runs."""
    from flows.cli.show import show_command

    show_command(name, as_json=as_json)


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Two to six versions: NAME, NAME@version or NAME@alias.",
            metavar="NAME NAME…",
            autocompletion=references,
        ),
    ],
    as_json: _Json = False,
) -> None:
    """Compare versions with the first: numbers and whether they differ, cosine per block, settings that differ."""
    from flows.cli.compare import compare_command

    compare_command(names, as_json=as_json)


def lineage(
    name: _Name,
    direction: Annotated[
        str, typer.Option(help="up: what it was made from; down: what was made from it; or both.")
    ] = "both",
    depth: Annotated[int | None, typer.Option(min=1, help="So many steps at most.")] = None,
    as_json: _Json = False,
) -> None:
    """Show what a version was made from, and what was made from it."""
    from flows.cli.versions import lineage_command

    lineage_command(name, direction=direction, depth=depth, as_json=as_json)


def play(
    name: Annotated[
        str,
        typer.Argument(help="The transplant: NAME, NAME@version or NAME@alias.", autocompletion=references),
    ],
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="OTHER", help="One more, as NAME or NAME=DOSE; up to two.", autocompletion=references
        ),
    ] = None,
    dose: Annotated[
        float | None, typer.Option(help="Of the first, in residual norms; by default the dose it was chosen for.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="REF", help="Where to load the model from, if not as registered.", autocompletion=model_names
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens of an answer.")] = 40,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Answer this one prompt instead of asking for some.")
    ] = None,
    as_json: _Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but answers and errors.")] = False,
) -> None:
    """Play with a transplant: type prompts, read unsteered and steered answers beside each other.

    Tokens of the steered answer are coloured by their KL to the unsteered model. /help shows what else can be typed.
    """
    from flows.cli.play import play_command

    play_command(name, others or [], dose=dose, model=model, tokens=tokens, prompt=prompt, as_json=as_json, quiet=quiet)
