"""`contrans plan`."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from contrans.models.reference import resolve
from flows.cli.talk import Talk, data_console, print_json
from flows.spec import Matrix, Sweep, load_sweep

if TYPE_CHECKING:
    from flows.planning import Plan, PlannedStep

_LEFT = ("step", "done")


def plan_command(spec: str, settings: Sequence[str], *, on: str, as_json: bool, quiet: bool) -> None:
    """Shows what a run would do, step by step; of a sweep or a matrix all of it together.

    Args:
        spec: The spec's file or name.
        settings: "key=value" each.
        on: "here", or a GPU of `flows.hardware.GPUS`.
        as_json: Whether to print `flows.planning.Plan.as_json` instead of a table; of a sweep with its points too, of a
            matrix with its cells.
        quiet: Whether to say nothing beside it.

    Raises:
        ContransError: There is no such machine, or the spec cannot be planned.
    """
    sweep = load_sweep(spec, settings)
    talk = Talk(quiet=quiet)
    with talk.working("planning"):
        from flows.hardware import gpu
        from flows.planning import plan_all

        planned = plan_all([point.spec for point in sweep.points], on=gpu(on))
    if as_json:
        print_json(planned.as_json() | _what_is_planned(sweep))
        return
    data_console().print(_table(planned, _title(sweep)))
    for reference, size in planned.fetch.items():
        talk.console.print(f"{reference} must be fetched first, {_download(reference, size)}")
    for line in _speed(planned):
        talk.console.print(line)
    typed = shlex.join([spec, *(part for setting in settings for part in ("--set", setting))])
    talk.console.print(f"next      [bold]contrans run {escape(typed)}[/bold]", soft_wrap=True)


def _what_is_planned(sweep: Sweep) -> dict[str, Any]:
    points: list[dict[str, Any]] = [{"values": point.values} for point in sweep.points]
    if isinstance(sweep, Matrix):
        about = [{k: getattr(p.spec, k) for k in ("name", "source", "target", "concepts")} for p in sweep.points]
        cells = [{**said, **values} for said, values in zip(about, points, strict=True)]
        return {"matrix": {"keys": list(sweep.keys), "cells": cells}}
    return {"sweep": {"keys": list(sweep.keys), "points": points}} if sweep.many else {}


def _speed(planned: "Plan") -> list[str]:
    if not planned.gflops:
        return []
    slow, fast = min(planned.gflops.values()), max(planned.gflops.values())
    speed = f"{slow:,.0f}" if round(slow) == round(fast) else f"{slow:,.0f} to {fast:,.0f}"
    if not planned.gpus:
        return [f"speed     {speed} GFLOP/s in blocks, measured on this machine"]
    gpus = f"{planned.gpus} × {planned.machine}" if planned.gpus > 1 else planned.machine
    return [
        f"speed     {speed} GFLOP/s in blocks, assumed from published peaks",
        f"GPUs      {gpus}: {planned.gpu_hours:.2g} GPU-hours, predicted",
    ]


def _download(reference: str, size: int | None) -> str:
    if size is not None:
        return f"a download of {size / 1e6:,.0f} MB, and is converted once"
    facts = resolve(reference).facts()
    if facts is None or facts.parameters is None:
        return "a download of unknown size"
    return f"a download of {2 * facts.parameters / 1e9:,.1f} GB in two bytes a weight"


def _title(sweep: Sweep) -> str:
    first = sweep.points[0].spec
    if isinstance(sweep, Matrix):
        pairs = {(point.spec.source, point.spec.target) for point in sweep.points}
        sides = [len({pair[i] for pair in pairs}) for i in range(2)]
        cells = "" if len(pairs) == len(sweep.points) else f", {len(sweep.points)} cells"
        return f"{sweep.name}: {len(pairs)} pairs of {sides[0]} sources and {sides[1]} targets{cells}"
    if not sweep.many:
        return f"{sweep.name}: {first.source} → {first.target}"
    swept = " and ".join(f"{key} ({len(values)} values)" for key, values in sweep.axes.items())
    sides = [f"each {side}" if side in sweep.axes else getattr(first, side) for side in ("source", "target")]
    return f"{sweep.name}: {' → '.join(sides)}, a sweep over {swept}"


def _table(planned: "Plan", title: str) -> Table:
    """A row for each kind of step: of a sweep they may be several, which then stand together."""
    table = Table(title=title, title_justify="left")
    for name in (*_LEFT, "texts", "tokens", "operations", "time", "memory"):
        table.add_column(name, justify="left" if name in _LEFT else "right")
    for name in dict.fromkeys(step.name for step in planned.steps):
        table.add_row(name, *_row([step for step in planned.steps if step.name == name]))
    table.add_section()
    todo = [step for step in planned.steps if not step.cached]
    counts = (f"{sum(s.texts for s in todo):,}", f"{sum(s.tokens for s in todo):,}", operations(planned.flops))
    costs = (duration(planned.seconds), f"{planned.memory / 1e9:.1f} GB")
    table.add_row("to do", f"{len(todo)} of {len(planned.steps)}", *counts, *costs, style="bold")
    return table


def _row(steps: Sequence["PlannedStep"]) -> list[str]:
    done = sum(step.cached for step in steps)
    word = f"{done} of {len(steps)}" if len(steps) > 1 else "yes" if done else "no"
    texts, tokens = (sum(getattr(step, name) for step in steps) for name in ("texts", "tokens"))
    counts = [f"{texts:,}" if texts else "", f"{tokens:,}" if tokens else ""]
    work = sum(step.flops for step in steps)
    if done == len(steps):
        return [word, *counts, operations(work) if work else "", "", ""]
    costs = [duration(sum(step.seconds for step in steps)), f"{max(step.memory for step in steps) / 1e9:.1f} GB"]
    return [word, *counts, operations(work) if work else "", *costs]


def operations(flops: float) -> str:
    """Floating-point operations with the unit that keeps the number short: "8.2 TFLOP"."""
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12)):
        if flops >= size:
            return f"{flops / size:,.3g} {unit}FLOP"
    return f"{flops / 1e9:,.3g} GFLOP"


def duration(seconds: float) -> str:
    """A time as people say it: "12 s", "3 min 20 s", "2 h 5 min", "12 d 3 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole or not seconds else "<1 s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400:,} d {whole % 86400 // 3600} h"
