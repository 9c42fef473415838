"""`contrans models`."""

from typing import Any

from rich.table import Table

from contrans.models import catalogue, resolve
from flows.cli.talk import data_console, print_json


def models_command(*, as_json: bool) -> None:
    """Lists the catalogue.

    Args:
        as_json: Whether to print JSON: `name`, `base_model`, `licence`, `licence_url`, `fetched`, `bytes`,
            `blocks`, `width`, `vocabulary`, `parameters`, `context` of each.
    """
    entries = [_entry(name) for name in sorted(catalogue.MODELS)]
    if as_json:
        print_json(entries)
        return
    table = Table()
    for name in ("name", "licence", "fetched", "download", "parameters", "blocks", "width"):
        table.add_column(name, justify="left" if name in ("name", "licence") else "right")
    for e in entries:
        sizes = (f"{e['bytes'] / 1e6:,.0f} MB", f"{e['parameters'] / 1e6:,.0f} M")
        fetched = "yes" if e["fetched"] else "no"
        table.add_row(e["name"], e["licence"], fetched, *sizes, str(e["blocks"]), str(e["width"]))
    data_console().print(table)


def _entry(name: str) -> dict[str, Any]:
    entry = catalogue.MODELS[name]
    reference = f"pypi:{name}"
    return {
        "name": reference,
        "base_model": entry.base_model,
        "licence": entry.licence,
        "licence_url": entry.licence_url,
        "fetched": resolve(reference).folder() is not None,
        "bytes": entry.size,
        "blocks": entry.facts.n_blocks,
        "width": entry.facts.hidden_size,
        "vocabulary": entry.facts.vocab_size,
        "parameters": entry.facts.parameters,
        "context": entry.facts.context_length,
    }
