"""`contrans export` and `contrans import`: other tools' formats; what they do is imported when they are called."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.completing import model_names, references

if TYPE_CHECKING:
    from contrans.exchange import Shift
    from registry import Registry

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but data and errors.")]
_EXPORTS = "gguf, repeng, easysteer, huggingface, lm-eval, steering-vectors, easyedit2, safetensors, baked or peft."
_IMPORTS = "gguf, repeng, easysteer, steering-vectors, easyedit2 or safetensors."


def add_exchange_commands(app: typer.Typer) -> None:
    """Puts the commands into the front command."""
    app.command()(export)
    app.command(name="import")(import_)


def export(
    name: Annotated[
        str, typer.Argument(help="The transplant: NAME, NAME@version or NAME@alias.", autocompletion=references)
    ],
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help=_EXPORTS)],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="PATH", help="The file or folder to write.")],
    dose: Annotated[
        float | None, typer.Option(help="Shift in median residual norms; by default the one it was validated at.")
    ] = None,
    block: Annotated[int | None, typer.Option(help="By default the block it was made for.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Write a transplant for another tool, its dose folded in (`registry export` archives versions instead)."""
    from flows.cli.talk import Talk, data_console, print_json
    from flows.runs import open_registry
    from registry.exporting import shift_of_version

    with open_registry(create=False) as registry, Talk(quiet=quiet).working(f"Exporting {name}"):
        shift = shift_of_version(registry, name, dose=dose, block=block)
        usage = _write(registry, name, shift, format, out, force=force)
    blocks = sorted(shift.blocks)
    if as_json:
        told = {"format": format, "path": str(out), "concept": shift.concept, "model": shift.model.reference}
        print_json({**told, "blocks": blocks, "dose": shift.dose, "made_from": shift.origin, "usage": usage})
        return
    said = (
        f"{shift.origin} for {shift.model.reference}, block {blocks[0]}, dose {shift.dose:g}, is in {out}. Use it so:"
    )
    data_console().print(said, highlight=False, markup=False, soft_wrap=True)
    data_console().print(usage, highlight=False, markup=False, soft_wrap=True)


def import_(
    place: Annotated[str, typer.Argument(help="A file, a folder, or ORG/REPO or ORG/REPO@revision.", metavar="PLACE")],
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help=_IMPORTS)],
    model: Annotated[
        str,
        typer.Option(
            "--model", metavar="MODEL", help="The model that the directions are of.", autocompletion=model_names
        ),
    ],
    concept: Annotated[str, typer.Option("--concept", metavar="CONCEPT", help="What the directions stand for.")],
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its name here; by default CONCEPT/MODEL/FORMAT.")
    ] = None,
    file: Annotated[str | None, typer.Option(metavar="FILE", help="The file in the repository ORG/REPO.")] = None,
    blocks: Annotated[list[int] | None, typer.Option("--block", help="Only this block; may be repeated.")] = None,
    contrast: Annotated[
        str | None,
        typer.Option(metavar="SET", help="Contrast set to measure the scales on, such as emotion/anger."),
    ] = None,
    allow_mismatch: Annotated[
        bool, typer.Option("--allow-mismatch", help="Also a file for another kind of model of this size.")
    ] = False,
    as_json: _Json = False,
    quiet: _Quiet = False,
) -> None:
    """Register a vector that another tool made (`registry import` takes archives of versions instead)."""
    from contrans import contrast_set, load_model
    from contrans.exchange.formats import format_named
    from flows.cli.talk import Talk, data_console, print_json
    from flows.runs import open_registry
    from registry.imported import import_vector

    format_named(format, to="import")  # before a model is loaded
    measured_on = None if contrast is None else contrast_set(contrast)
    with open_registry() as registry, Talk(quiet=quiet).working(f"Importing {place}"):
        found = import_vector(
            registry,
            place,
            format=format,
            model=load_model(model),
            concept=concept,
            name=name,
            file=file,
            blocks=blocks or (),
            measured_on=measured_on,
            allow_mismatch=allow_mismatch,
        )
    if as_json:
        print_json(found.as_json())
        return
    at = found.vector.blocks
    span = f"block {at[0]}" if len(at) == 1 else f"{len(at)} blocks from {at[0]} to {at[-1]}"
    said = f"{found.version} holds {concept} of {model} at {span}, SHA-256 {found.origin['sha256']}."
    data_console().print(said, highlight=False, markup=False, soft_wrap=True)


def _write(registry: "Registry", name: str, shift: "Shift", format: str, out: Path, *, force: bool) -> str:
    """Writes the export and gives the lines that use it."""
    from contrans.exchange.formats import check_suffix, format_named
    from contrans.exchange.writing import check_free, write_content

    check_free(out, force=force)
    if format in ("baked", "peft"):
        return _write_model(registry, name, shift, format, out, force=force)
    found = format_named(format, to="export")
    check_suffix(out, found)
    write_content(out, found.write(shift), force=force)
    return found.usage(shift, str(out))


def _write_model(registry: "Registry", name: str, shift: "Shift", format: str, out: Path, *, force: bool) -> str:
    from contrans import load_model
    from contrans.exchange.baked import export_adapter, export_baked, usage_of
    from registry.exporting import vector_of_version

    _, vector = vector_of_version(registry, name)
    [block] = shift.blocks
    settings: dict[str, Any] = {"dose": shift.dose, "block": block, "origin": shift.origin, "force": force}
    write = export_baked if format == "baked" else export_adapter
    write(load_model(shift.model.reference), vector, out, **settings)
    return usage_of(format, shift.model.reference, str(out))
