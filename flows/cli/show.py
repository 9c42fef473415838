"""`contrans show`: what a version is, what was measured of it beside its controls, and how it is used."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from textwrap import indent
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from contrans.validation.grids import Grid
from contrans.validation.row_table import RowTable
from contrans.validation.wording import spoken
from flows.cli.evidence_plots import effect_by_arm, effect_by_cost
from flows.cli.opening import open_reader
from flows.cli.plots import visible
from flows.cli.talk import data_console, print_json
from registry import Result, Version
from registry.browse.elsewhere import Elsewhere
from registry.browse.evidence import Panel, Sample
from registry.browse.pages import VersionPage, version_page
from registry.browse.reading import Reader
from registry.records import Run

_SEVERITY = {"failure": "bold red", "warning": "yellow", "note": "dim"}
_SAMPLES = 4  # prompts that are shown


def show_command(name: str, *, as_json: bool) -> None:
    """Shows one version.

    Args:
        name: Reference of the version.
        as_json: Whether to print JSON: `Version.as_json` with `manifest`, and `files` (SHA-256 by name),
            `inputs` (reference by role), `used_by`, `results` and `runs`.
    """
    console = data_console()
    with open_reader() as registry:
        version = registry.get(name)
        if as_json:
            print_json(_described(registry, version))
            return
        for part in _page(registry, version_page(registry, version), console):
            console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))  # what is copied is not cut


def _page(registry: Reader, page: VersionPage, console: Console) -> Iterator[RenderableType]:
    yield Text.assemble((page.version.ref, "bold"), f"  {page.version.kind}")
    yield Text(visible(page.sentence))
    yield ""
    yield _facts(page)
    judges = page.version.kind in ("transplant", "validation")
    for panel in page.panels:
        yield ""
        yield Text.assemble((visible(panel.protocol), "bold"), (f"  {panel.validation.ref}", "dim"))
        if panel.headline:
            yield Text(visible(panel.headline))
        if judges:
            yield from _evidence(registry, panel, console)
        if page.version.kind == "validation":  # of a transplant the plots are enough
            for grid in panel.grids:
                yield ""
                yield grid
    if page.python:
        yield ""
        yield Text("Use it:", style="bold")
        yield Text(indent(page.python, "  "), no_wrap=True, overflow="ignore")
    if page.playable:
        yield Text.assemble(
            "or try it: ", (f"contrans play {page.version.ref}", "bold"), no_wrap=True, overflow="ignore"
        )


def _evidence(registry: Reader, panel: Panel, console: Console) -> Iterator[RenderableType]:
    rows = [asdict(r) for r in registry.results(panel.validation) if r.value is not None]
    protocol = next(r["protocol"] for r in rows if spoken(r["protocol"]) == panel.protocol)
    table = RowTable.of(rows, protocol=protocol)
    concept = str(panel.validation.manifest.get("concept"))
    about = concept if table.find(concept, "transplanted", table.effect) else (table.headlines() or [concept])[0]
    if about in table.headlines() or about in table.concepts():
        yield ""
        yield effect_by_arm(table, about, width=console.width)
    yield from effect_by_cost(table, about, width=console.width)
    if panel.findings or panel.power:
        yield ""
    for finding in panel.findings:
        yield Text.assemble((f"{finding.severity}: ", _SEVERITY[finding.severity]), visible(finding.sentence))
    if panel.power:
        yield Text(f"{panel.power} (95 %, one share near a half).", style="dim")
    if panel.samples:
        yield ""
        yield _samples(panel.samples)


def _samples(samples: Sequence[Sample]) -> Table:
    arms = list(dict.fromkeys(arm for sample in samples for arm, *_ in sample.texts))
    kept = [arm for arm in ("unsteered", "transplanted", "own") if arm in arms] or arms
    rows = []
    for sample in samples[:_SAMPLES]:
        texts = {arm: f"({flaw}) {text.strip()}" if flaw else text.strip() for arm, text, flaw in sample.texts}
        rows.append(tuple(map(visible, (sample.prompt, *(texts.get(arm, "–") for arm in kept)))))
    return Grid("samples", ("prompt", *map(visible, kept)), tuple(rows), prose=True).rich()


def _facts(page: VersionPage) -> Table:
    version = page.version
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    grid.add_row("aliases", Text(", ".join(version.aliases) or "–"))
    if page.tags:
        grid.add_row("tags", Text(", ".join(page.tags)))
    grid.add_row("created", f"{version.created.astimezone():%Y-%m-%d %H:%M}")
    grid.add_row("digest", version.digest)
    for key, value in page.settings.items():
        grid.add_row(Text(visible(key)), Text(visible(value)))
    elsewhere = Elsewhere.find()
    groups = {
        "files": [f"{name}  {digest}" for name, digest in page.files.items()],
        "inputs": [f"{role}  {parent}" for role, parent in page.inputs],
        "used by": [str(child) for _, child in page.used_by],
        "published": [f"{p.repo}@{p.tag or p.commit}" for p in page.publications],
        "runs": [_run(run, elsewhere) for run in page.runs],
    }
    for group, lines in groups.items():
        for i, line in enumerate(lines):
            grid.add_row(group if i == 0 else "", Text(visible(line)))
    return grid


def _run(run: Run, elsewhere: Elsewhere) -> str:
    prefect = elsewhere.prefect_run(run) or run.flow_run_id or "–"
    return f"{run.id}  {run.state}  Prefect {prefect}  MLflow {elsewhere.mlflow_run(run) or run.mlflow_run_id or '–'}"


def _described(registry: Reader, version: Version) -> dict[str, Any]:
    lineage = registry.lineage(version, "both", depth=1)
    results = registry.results(version) if version.kind == "validation" else []
    runs = registry.runs(version=version)
    return version.as_json(manifest=True) | {
        "files": registry.files(version),
        "inputs": {role: str(parent) for role, parent in lineage.parents(version)},
        "used_by": [str(child) for _, child in lineage.children(version)],
        "results": [_result(result) for result in results],
        "runs": [
            {
                "id": run.id,
                "state": run.state,
                "flow_run_id": run.flow_run_id,
                "mlflow_run_id": run.mlflow_run_id,
                "commit": run.commit,
                "started": run.started.isoformat(),
            }
            for run in runs
        ],
    }


def _result(result: Result) -> dict[str, Any]:
    keys = ("concept", "protocol", "split", "arm", "metric", "dose", "value", "low", "high", "n")
    return {key: getattr(result, key) for key in keys}
