"""`contrans list`, `show` and `lineage`."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flows.cli.talk import data_console, print_json
from flows.runs import open_registry
from registry import Lineage, Registry, Result, Version


def list_command(*, kind: str | None, as_json: bool) -> None:
    """Lists versions, the newest first.

    Args:
        kind: Only of this kind.
        as_json: Whether to print JSON, an array of `Version.as_json`.
    """
    with open_registry() as registry:
        versions = registry.list(kind)
    nothing = "The registry holds nothing yet; `contrans run quickstart` fills it."
    print_versions(versions, as_json=as_json, nothing=nothing)


def print_versions(versions: Sequence[Version], *, as_json: bool, nothing: str) -> None:
    """Prints versions as a table.

    Args:
        versions: In the order of the rows.
        as_json: Whether to print JSON instead, an array of `Version.as_json`.
        nothing: What is said where there are none.
    """
    if as_json:
        print_json([version.as_json() for version in versions])
        return
    console = data_console()
    if not versions:
        console.print(nothing)
        return
    table = Table()
    for name in ("kind", "name", "version", "aliases", "created"):
        # Names are what one copies from here: they wrap, everything else gives way.
        table.add_column(name, justify="right" if name == "version" else "left", overflow="fold")
    for v in versions:
        created = f"{v.created.astimezone():%Y-%m-%d %H:%M}"
        table.add_row(v.kind, v.name, str(v.number), ", ".join(v.aliases), created)
    console.print(table)


def show_command(name: str, *, as_json: bool) -> None:
    """Shows one version.

    Args:
        name: Reference of the version.
        as_json: Whether to print JSON: `Version.as_json` with `manifest`, and `files` (SHA-256 by name),
            `inputs` (reference by role), `used_by`, `results` and `runs`.
    """
    with open_registry() as registry:
        found = _described(registry, registry.get(name))
    if as_json:
        print_json(found)
        return
    console = data_console()
    console.print(_facts(found))
    if found["results"]:
        console.print(_results(found["results"]))


def lineage_command(name: str, *, as_json: bool) -> None:
    """Shows both directions of a version's lineage.

    Args:
        name: Reference of the version.
        as_json: Whether to print `Lineage.as_json`.
    """
    with open_registry() as registry:
        lineage = registry.lineage(name, "both")
    if as_json:
        print_json(lineage.as_json())
        return
    console = data_console()
    console.print(_tree(lineage, "up", "made from"))
    if lineage.children(lineage.root):
        console.print(_tree(lineage, "down", "used by"))


def _described(registry: Registry, version: Version) -> dict[str, Any]:
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


def _facts(found: Mapping[str, Any]) -> RenderableType:
    title = Text.assemble((found["ref"], "bold"), f"  {found['kind']}")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for key in ("aliases", "created", "digest"):
        value = found[key]
        grid.add_row(key, ", ".join(value) or "–" if isinstance(value, list) else str(value))
    for key, value in _flat(found["manifest"]):
        grid.add_row(key, value)
    for group in ("files", "inputs"):
        for i, (name, value) in enumerate(found[group].items()):
            grid.add_row(group if i == 0 else "", f"{name}  {value}")
    for i, child in enumerate(found["used_by"]):
        grid.add_row("used by" if i == 0 else "", child)
    for i, run in enumerate(found["runs"]):
        ids = f"{run['id']}  {run['state']}  Prefect {run['flow_run_id']}  MLflow {run['mlflow_run_id']}"
        grid.add_row("runs" if i == 0 else "", ids)
    return Group(title, grid)


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping) and set(inner) == {"value", "low", "high"}:
            interval = "" if inner["low"] is None else f" [{_short(inner['low'])}, {_short(inner['high'])}]"
            rows.append((f"{prefix}{key}", _short(inner["value"]) + interval))
        elif isinstance(inner, Mapping):
            rows += _flat(inner, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", _short(inner)))
    return rows


def _short(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _results(results: list[dict[str, Any]]) -> Table:
    table = Table(title="results on test", title_justify="left")
    for name in ("concept", "arm", "metric", "dose", "value", "interval", "n"):
        table.add_column(name, justify="left" if name in ("concept", "arm", "metric") else "right")
    for r in results:
        if r["split"] == "dev":
            continue
        interval = "" if r["low"] is None or r["high"] is None else f"{r['low']:.3f} to {r['high']:.3f}"
        numbers = ["" if r[key] is None else f"{r[key]:.3g}" for key in ("dose", "value")]
        count = "" if r["n"] is None else str(r["n"])
        table.add_row(r["concept"], r["arm"], r["metric"], *numbers, interval, count)
    return table


def _tree(lineage: Lineage, direction: Literal["up", "down"], title: str) -> Tree:
    branches: list[Tree] = []
    for step in lineage.walk(direction):
        again = Text("  (see above)", style="dim") if step.repeated else ""
        role = f"{step.role}: " if step.role else ""
        label = Text.assemble((role, "dim"), (step.version.ref, "bold" if not step.depth else ""))
        label.append_text(Text.assemble((f"  {step.version.kind}", "dim"), again))
        if not step.depth:
            branches = [Tree(Text.assemble(label, (f"  {title}", "dim")))]
            continue
        del branches[step.depth :]
        branches.append(branches[-1].add(label))
    return branches[0]
